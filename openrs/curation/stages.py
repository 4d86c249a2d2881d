"""Stages that look at one row alone: pure functions, row -> row, or row -> the reason why it goes."""

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from openrs.config.schema import Prompt, Settings
from openrs.curation.decontaminate import decontaminate
from openrs.curation.rows import Out, Row
from openrs.curation.settings import Boxed, Decontaminate, Form, Language, Length, Rewrite
from openrs.data.chat_template import messages_of
from openrs.data.scripts import letters
from openrs.rewards.kinds import safe_form

Check = Callable[[Row], Row | Out]


def check_of(settings: Settings, questions: Path | None = None) -> Check:
    """The function of a row stage with these settings. questions: what decontaminate.gather wrote."""
    made: dict[type[Settings], Callable[[Any], Check]] = {
        Boxed: lambda _: boxed,
        Rewrite: rewrite,
        Form: form,
        Language: language,
        Length: length,
        Decontaminate: lambda given: decontaminate(given, questions),
    }
    return made[type(settings)](settings)


def boxed(row: Row) -> Row | Out:
    """Keeps rows whose solution boxes something; that is the answer where there is none."""
    inside = last_box(row.solution or "")
    if inside is None:
        return Out("no box in the solution")
    if not inside.strip():
        return Out("the box in the solution is empty")
    return row if row.answer else replace(row, answer=inside.strip())


def last_box(text: str) -> str | None:
    """What the last \\boxed{...} (or \\fbox) of a text holds, its braces balanced; None when there is none."""
    for match in reversed(list(re.finditer(r"\\(?:boxed|fbox)\s*\{", text))):
        depth = 1
        for place in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0) if text[place - 1] != "\\" else 0
            if depth == 0:
                return text[match.end() : place]
    return None


def rewrite(settings: Rewrite) -> Check:
    """The answer, and the last box of the solution, in a safe form. Removes nothing."""
    kinds = tuple(settings.kinds)

    def check(row: Row) -> Row:
        inside = last_box(row.solution or "")
        solution = row.solution
        if solution is not None and inside and (new := safe_form(inside, kinds)) != inside:
            start = solution.rindex(inside)
            solution = solution[:start] + new + solution[start + len(inside) :]
        return replace(row, answer=safe_form(row.answer, kinds), solution=solution)

    return check


# Parts that are listed: "(1) ... (2)", "(a) ... (b)", "(i) ... (ii)", "Part 1", "1. ... 2.", each at the beginning of a
# line or sentence and followed by something to do: conditions and statements are listed too, and are one question.
_DO = (
    r"(?:find|determine|calculate|compute|prove|show|what|how|when|if|write|solve|evaluate|express|give|is|are|does|state|"
    r"which|for\s+what|for\s+which|under|suppose|let|in\s+how|on|at|given|complete|estimate|use|find\s+the|the\s+value)"
)
_ASK = r"(?:find|determine|calculate|compute|prove|show|what|how|write|solve|evaluate|express|give|which|does|is)\b"
_LISTS = tuple(
    re.compile(
        rf"(?:^|[\n.;:?!,>]|<br\s*/?>)\s*\$?(?:{one})\$?\s*(?:{_DO}\b.*?)(?:[\n.;:?!,>]|<br\s*/?>|and|\s)\s*\$?(?:{two})\$?\s*{_DO}\b",
        re.IGNORECASE | re.DOTALL,
    )
    for one, two in (
        (r"\(?1[\).]", r"\(?2[\).]"),
        (r"\(1\)", r"\(2\)"),
        (r"\(?a\)|a\.\s", r"\(?b\)|b\.\s"),
        (r"\(?(?:i|Ⅰ|I)\)", r"\(?(?:ii|Ⅱ|II)\)"),
        (r"\[?part\s*(?:1|a|i)\b\]?:?", r"\[?part\s*(?:2|b|ii)\b\]?:?"),
    )
)
_PROOF = re.compile(
    r"(?:^|[.;:!?,\n)]\s*|\bthen\s+|\band\s+|\bto\s+)(?:prove|show|demonstrate|justify|disprove|verify)\b(?:\s+(?:that|the|if|your|why|whether|there|it)\b|[:,]|\s*\\?[\[$(])"
    r"|\bprove\s+(?:or\s+disprove|it|your|this)\b|\bexplain\s+(?:why|how|your)\b|\bgive\s+a\s+proof\b|\bwith\s+proof\b",
    re.IGNORECASE,
)
_PICTURE = re.compile(
    r"!\[[^\]]*\]\([^)]*\)|\\includegraphics|<img\b|https?://\S+\.(?:png|jpe?g|gif|svg)|cdn\.mathpix"
    r"|\b(?:in|from|see|using|with|refer\s+to)\s+(?:the\s+|this\s+|following\s+|given\s+|adjoining\s+|accompanying\s+)+"
    r"(?:figure|diagram|picture|image|drawing|graph|chart|sketch|illustration)s?\b(?!\s+of\b)"
    r"|\b(?:figure|diagram|picture|image|drawing|graph|chart|sketch|table|map|illustration|grid)s?\s+(?:is\s+|are\s+)?(?:shown|below|above|to\s+the\s+right|on\s+the\s+right|at\s+(?:the\s+)?right|on\s+the\s+left)\b"
    r"|\b(?:as|is|are)\s+(?:shown|pictured|depicted|illustrated)(?:\s+(?:below|above|here|at\s+right|in\s+(?:the\s+)?(?:figure|diagram|picture|image))|\s*[,.:;)])"
    r"|\bshown\s+(?:below|above|here|at\s+(?:the\s+)?right|in\s+(?:the\s+)?(?:figure|diagram|picture|image|graph))\b|\b(?:figure|fig\.)\s*\d",
    re.IGNORECASE,
)
_DRAWN = re.compile(r"\[asy\]|\\begin\{(?:asy|tikzpicture|tabular|array)\}|\|\s*:?-{2,}")
_FUNCTION_GRAPH = re.compile(r"\bthe\s+graphs?\s+of\b", re.IGNORECASE)
_CHOICE = re.compile(r"\\?(?:text(?:bf)?)?\{?\(?\s*([A-E])\s*[).:]?\s*\}?\s*$")


def form(settings: Form) -> Check:
    """The rules; what they cannot see a model may be asked (difficulty.py)."""

    def check(row: Row) -> Row | Out:
        if settings.proofs and (found := _PROOF.search(row.problem)):
            return Out("asks for a proof", _around(row.problem, found))
        if settings.parts and (where := several_parts(row.problem)) is not None:
            return Out("has several parts", where)
        if settings.pictures and (where := lacks_picture(row.problem)) is not None:
            return Out("needs a picture", where)
        if settings.choices and _CHOICE.fullmatch(row.answer) and re.search(r"\(?B[).:]", row.problem):
            return Out("multiple choice", row.answer)
        return row

    return check


def several_parts(problem: str) -> str | None:
    """The place where a second question begins, or None."""
    for pattern in _LISTS:
        found = pattern.search(problem)
        if found and re.search(_ASK, found[0], re.IGNORECASE):
            return _around(problem, found)
    return None


def lacks_picture(problem: str) -> str | None:
    """The words that speak of a picture which is not in the text, or None. Code that draws it ([asy]) is in the text;
    so is the graph of a function that is written down."""
    if _DRAWN.search(problem):
        return None
    found = _PICTURE.search(_FUNCTION_GRAPH.sub("the curve of", problem))
    return found[0].strip() if found else None


def _around(text: str, found: re.Match[str]) -> str:
    return " ".join(text[max(0, found.start() - 10) : found.start() + 90].split())


_ENGLISH = frozenset([
    "the", "a", "an", "of", "is", "are", "in", "and", "to", "if", "for", "that", "find", "what", "how", "with",
    "by", "on", "be", "as", "it", "at", "from", "has", "have", "which", "number", "all", "each", "value", "let",
    "given", "where", "such", "there", "two", "one", "this", "many", "points", "when", "determine", "can", "then",
    "compute", "evaluate", "solve", "equation", "does", "into", "he", "she", "they", "between", "integer",
])  # fmt: skip
_WORD = re.compile(r"[^\W\d_]{2,}|\ba\b")
_MATH = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\[asy\].*?\[/asy\]|\\[A-Za-z]+|<br */?>", re.DOTALL)


def language(settings: Language) -> Check:
    def check(row: Row) -> Row | Out:
        found, foreign = letters(row.problem)
        if found and foreign / found > settings.max_foreign:
            return Out("another script", f"{foreign} of {found} letters")
        words = list(dict.fromkeys(_WORD.findall(_MATH.sub(" ", row.problem.lower()))))
        if settings.english and len(words) >= 8 and sum(w in _ENGLISH for w in words) < 0.1 * len(words):
            return Out("not English", " ".join(words[:12]))
        return row

    return check


def length(settings: Length) -> Check:
    count = _counter(settings.tokenizer, settings.system) if settings.tokenizer is not None else None

    def check(row: Row) -> Row | Out:
        size = len(row.problem)
        if size < settings.min_characters:
            return Out("too short", f"{size} characters")
        if size > settings.max_characters:
            return Out("too long", f"{size:,} characters")
        if count is None:
            return row
        tokens = count(row.problem)
        if settings.max_tokens is not None and tokens > settings.max_tokens:
            return Out("too long", f"{tokens:,} tokens")
        return replace(row, tokens=tokens)

    return check


@functools.cache
def _counter(tokenizer: str, system: str | None) -> Callable[[str], int]:
    """Tokens of a problem's training prompt. `tokenizer` is a folder (chain.py has fetched what the hub has)."""
    from openrs.data.tokenizer import ChatEncoder  # with tokenizers and jinja2, for this stage alone

    encoder, prompt = ChatEncoder.from_folder(Path(tokenizer)), Prompt(system=system)

    def count(problem: str) -> int:
        text = encoder.render(messages_of(prompt, problem), True)
        special = not text.startswith(encoder.special.get("bos_token") or "\0")
        return len(encoder.tokenizer.encode(text, add_special_tokens=special).ids)

    return count

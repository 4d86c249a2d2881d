r"""Which columns of a row hold the problem and the reference answer, and how their values become text.

Rows come as text (NuminaMath, GSM8K, plain files) or as chats (verl, open-r1, OpenRLHF). A value that could be read in
two ways is not guessed: it has a fault, in words, and whoever reads refuses the row or takes it out.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from openrs.data.rows import MISSING, Row, cell

PROBLEM_COLUMNS = ("problem", "question", "prompt", "messages", "conversations", "context_messages", "input")
ANSWER_COLUMNS = (
    "answer", "reward_model.ground_truth", "final_answer", "ground_truth", "expected_answer", "label", "solution"
)  # fmt: skip
OWN_TURN = "the last assistant turn"  # of a chat that ends with it, where no column has the answer
_FINAL = re.compile(r"(?:^|\n)\s*####[ \t]*(\S[^\n]*?)\s*$")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)[eE][+-]?\d{1,4}")
_FORMULA = re.compile(r"(?<!\\)\$|\\\(|\\\[|\\boxed|\\fbox|\\begin")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_LONGEST_BARE = 300  # characters: longer texts are worked solutions
_MOST_WORDS = 4


def pick(row: Row, names: Sequence[str]) -> tuple[str, Any]:
    """The first of the columns that the row has with something in it, and its value; MISSING when it has none."""
    found: tuple[str, Any] = ("", MISSING)
    for name in names:
        value = cell(row, name)
        if value is not MISSING:
            if value is not None and value != "":
                return name, value
            found = found if found[0] else (name, value)
    return found


def shape_of(row: Row, problem: str, answer: str) -> str:
    """The name under which people know rows of this shape, e.g. "verl chat rows"."""
    chat = turns(cell(row, problem)) is not None
    text = cell(row, answer)
    if chat:
        owners = {
            "reward_model.ground_truth": "verl ",
            "label": "OpenRLHF ",
            "solution": "open-r1 ",
            OWN_TURN: "open-r1 ",
        }
        return f"{owners.get(answer, '')}chat rows"
    if problem == "question" and isinstance(text, str) and _FINAL.search(text):
        return "GSM8K rows"
    if problem == "problem" and answer == "solution":
        return "NuminaMath rows"
    return "OpenRLHF rows" if (problem, answer) == ("input", "label") else "text rows"


def read_as(shapes: Counter[str]) -> str:
    """What rows were read as, the most frequent first, with their numbers where they are of several shapes."""
    counted = shapes.most_common(3)
    return "read as: " + "; ".join(f"{shape} ({n:,} rows)" if len(counted) > 1 else shape for shape, n in counted)


# --- problems ---------------------------------------------------------------------------------------------------------


def question_text(value: Any) -> tuple[str, str]:
    """The problem in a cell, and what is wrong with it or nothing: a text as it stands, or a chat's last user turn."""
    chat = turns(value)
    if chat is None:
        return _plain(value, "problem")
    asked = [content for role, content in chat if role in ("user", "human")]
    return _plain(_joined(asked[-1]), "problem") if asked else ("", "wrong type: the chat has no user turn")


def own_answer(value: Any) -> Any:
    """What the assistant says at the end of a chat; None where it does not have the last word."""
    chat = turns(value)
    return _joined(chat[-1][1]) if chat and chat[-1][0] in ("assistant", "gpt") else None


def system_text(value: Any) -> str | None:
    """The system turn of a chat, None where there is none."""
    for role, content in turns(value) or ():
        if role == "system":
            text = _joined(content)
            return text if isinstance(text, str) else None
    return None


def turns(value: Any) -> list[tuple[str, Any]] | None:
    """Roles and contents of a chat (role and content, or ShareGPT's from and value); None for what is not a chat."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        value = _parsed(value)
    if not isinstance(value, list) or not value or not all(isinstance(turn, Mapping) for turn in value):
        return None
    pairs = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in value]
    return [(str(role), content) for role, content in pairs] if all(role is not None for role, _ in pairs) else None


def _joined(content: Any) -> Any:
    """A turn's content as text where it is a list of text parts; as it is, for the caller to refuse, where not."""
    if isinstance(content, list) and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in content):
        return "".join(part["text"] for part in content)
    return content


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# --- reference answers ------------------------------------------------------------------------------------------------


def answer_text(value: Any) -> tuple[str, str]:
    r"""The reference answer in a cell, and what is wrong with it or nothing.

    A list of one is that one, numbers have full digits (1e-7 is 10^{-7}), and GSM8K's `#### 2` is 2. Nothing for None,
    an empty text and an empty list.
    """
    while isinstance(value := _as_list(value), list) and len(value) <= 1:
        value = value[0] if value else None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if not math.isfinite(value):
            return "", f"wrong type: the answer is {value}"
        return number_text(value), ""
    text, fault = _plain(value, "answer")
    text = text.strip()
    if final := _FINAL.search(text):
        text = final[1]
    return text, fault


def _as_list(value: Any) -> Any:
    """A text that is a JSON list of texts, as some data sets have it, as that list."""
    if isinstance(value, str) and value.lstrip().startswith('["'):
        parsed = _parsed(value)
        return parsed if isinstance(parsed, list) else value
    return value


def number_text(value: float | Decimal) -> str:
    r"""A finite number in full digits; as a power of ten where these would be a row of zeros.

    >>> [number_text(v) for v in (27.0, 2.5, 1e-7, 1e22, -1.5e-9)]
    ['27', '2.5', '10^{-7}', '10000000000000000000000', '-1.5\\times 10^{-9}']
    """
    if isinstance(value, int):
        return str(value)
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    power = number.adjusted() if number else 0
    if -7 < power < 40:
        text = format(number, "f")
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text == "-0" else text
    sign, digits, _ = number.as_tuple()
    head = "".join(map(str, digits)).rstrip("0")
    factor = "" if head == "1" else rf"{head[0]}{'.' if head[1:] else ''}{head[1:]}\times "
    return f"{'-' if sign else ''}{factor}10^{{{power}}}"


def as_mathematics(answer: str) -> str:
    """A bare answer between dollars, so that the judge reads it as mathematics; other texts as they are: those that
    mark their mathematics themselves, and worked solutions."""
    bare = answer.strip()
    if bare.startswith("$") and re.fullmatch(r"\$\s?-?[\d.,]+", bare):  # a price
        return f"{bare}$"
    if not bare or _FORMULA.search(bare) or is_worked(bare):
        return answer
    return f"${number_text(Decimal(bare)) if _NUMBER.fullmatch(bare) else bare}$"


def is_worked(text: str) -> bool:
    """Whether it is a solution in sentences, and not an answer alone."""
    return "\n" in text.strip() or len(text) > _LONGEST_BARE or len(_WORD.findall(text)) > _MOST_WORDS


# --- both -------------------------------------------------------------------------------------------------------------


def _plain(value: Any, part: str) -> tuple[str, str]:
    if value is MISSING or value is None:
        return "", ""
    if not isinstance(value, str):
        return "", f"wrong type: the {part} is a {type(value).__name__}, not a text"
    if value.lstrip().startswith("[{'"):
        return "", f"wrong type: the {part} is a list in Python's notation, not in JSON"
    return value, odd_character(value, part)


def odd_character(text: str, part: str) -> str:
    """What no text of a problem may hold, in words; empty when there is nothing of it."""
    found = _ODD.search(text)
    if found is None:
        return ""
    odd = found[0]
    if odd == "\0":
        return f"a NUL byte: in the {part}"
    if odd >= "\ud800":
        return f"half a character: a lone surrogate in the {part}"
    return f"a control character: {odd!r} in the {part}; a backslash that JSON took, perhaps"

r"""Where the answer stands: the last box after the thought, else what follows "answer".

math-verify searches with regular expressions over the whole completion, thought included; it needs a brace right after
`\boxed` (lm-evaluation-harness 3477). Here the text is read once, so a megabyte of it is no matter.
"""

import re

from openrs.rewards.normalize import CHARACTERS

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_MARK = re.compile(r"[{}]")
_BETWEEN = re.compile(r"(?:[\s$,;.*]|\\[\])(,; ]|\\text|[{}]|\\quad|and|or)*")
_ANCHOR = re.compile(r"answers?(?![A-Za-z])", re.IGNORECASE)
_LEAD = re.compile(r"(?:[\s:*=_>]|\bis\b|\bare\b|\bto the (?:problem|question)\b)*", re.IGNORECASE)
_MATH = re.compile(r"\$\$|\$|\\\[|\\\(")
_ENDS = {"$$": "$$", "$": "$", r"\[": r"\]", r"\(": r"\)"}
NEAR = 60  # characters between "answer" and the formula that it announces (math-verify: 50)
LONGEST = 4000
ANCHORS = 5  # of the last ones
_SENTENCE = re.compile(r"[.!?;](?=\s|$)|\n")
_JOINT = re.compile(r"[\s,;.]*(?:and|or)?[\s,;.]*")


def as_continued(prompt: object, completion: str) -> str:
    """The completion, with the beginning of the thought that its prompt has opened (`...<think>\\n`): with that before
    it, after_thought knows that an answer must come after the end of the thought. No text, no thought."""
    return f"<think>\n{completion}" if opens_thought(prompt) else completion


def opens_thought(prompt: object) -> bool:
    return isinstance(prompt, str) and prompt.rfind("<think>") > prompt.rfind("</think>")


def after_thought(completion: str) -> str | None:
    """What comes after the thought; None when the thought has no end. Without one it is all of the text."""
    closed = completion.rfind("</think>")
    if closed >= 0:
        return completion[closed + len("</think>") :]
    return None if "<think>" in completion else completion


def answer_in(completion: str) -> str:
    """The answer's LaTeX, or nothing. A finished thought counts where nothing at all comes after it."""
    text = after_thought(completion)
    if text is None:
        return ""
    return boxed(text) or announced(text) or (boxed(completion) if not text.strip() else "")


def gold_in(text: str) -> str:
    """The reference answer's LaTeX: in a box, after "answer", between dollars, or the text as it stands."""
    if found := boxed(text):
        return found
    formulas = _formulas(text)
    if not formulas:
        return text.strip() if len(text) < 300 and "\n" not in text.strip() else announced(text)
    outside = _outside(text, formulas)
    if len(outside.split()) <= 3 and not _ANCHOR.search(outside):
        return text.replace("$", " ").strip() if len(text) < LONGEST else ""
    if found := announced(text):
        return found
    start, end = formulas[-1]
    for earlier in reversed(formulas[:-1]):  # "... $3$ and $4$"
        if not _JOINT.fullmatch(text, earlier[1], start):
            break
        start = earlier[0]
    return text[start:end].replace("$", " ").strip()


def _formulas(text: str) -> list[tuple[int, int]]:
    """Spans of what stands between dollars and the like, these included."""
    found: list[tuple[int, int]] = []
    place = 0
    ended: set[str] = set()  # marks that no longer occur: searched for once
    while (opening := _MATH.search(text, place)) is not None:
        if opening.start() and text[opening.start() - 1] == "\\":
            place = opening.end()
            continue
        mark = _ENDS[opening[0]]
        end = -1 if mark in ended else _unescaped(text, mark, opening.end())
        if end < 0:
            ended.add(mark)
            place = opening.end()
            continue
        place = end + len(mark)
        found.append((opening.start(), place))
    return found


def _unescaped(text: str, mark: str, place: int) -> int:
    end = text.find(mark, place)
    while end > 0 and mark[0] == "$" and text[end - 1] == "\\":
        end = text.find(mark, end + 1)
    return end


def _outside(text: str, formulas: list[tuple[int, int]]) -> str:
    parts, place = [], 0
    for start, end in formulas:
        parts.append(text[place:start])
        place = end
    return " ".join([*parts, text[place:]])


# --- boxes ------------------------------------------------------------------------------------------------------------


def boxed(text: str) -> str:
    r"""What the last box holds; boxes joined by a comma, `and` or `or` are one answer. Nothing without a box."""
    starts = [found.end() for found in _BOX.finditer(text)]
    if not starts:
        return ""
    last = set(starts[-20:])
    closing = _braces(text, starts[0])
    spans: list[tuple[int, int, str]] = []  # of outer boxes only
    for place in starts:
        if spans and place <= spans[-1][1]:
            continue
        start = place
        while start < len(text) and text[start] in " \t\n":
            start += 1
        end = closing.get(start)
        if end is not None and end - start <= LONGEST:
            spans.append((place, end, text[start + 1 : end].strip()))
        elif end is None and place in last and text[start : start + 1] != "{":
            spans.append((place, *_cut(text, start)[::-1]))
    spans = [span for span in spans if span[2].strip()]
    if not spans and closing.get(starts[-1], -1) < 0:
        # The only box lacks its brace. One that the end of the text cut off does not count.
        inside, end = _cut(text, starts[-1] + 1)
        return inside.strip() if end < len(text) and text[starts[-1] : starts[-1] + 1] == "{" else ""
    joined: list[str] = []
    for index in range(len(spans) - 1, -1, -1):
        joined.append(spans[index][2])
        between = text[spans[index - 1][1] + 1 : spans[index][0] - len(r"\boxed")] if index else ""
        if not index or len(between) > 30 or not _BETWEEN.fullmatch(between) or not re.search("and|or|,", between):
            break
    return ", ".join(reversed(joined))


def _braces(text: str, start: int) -> dict[int, int]:
    opened: list[int] = []
    pairs: dict[int, int] = {}
    for found in _MARK.finditer(text, max(0, start - 1)):
        place = found.start()
        if place and text[place - 1] == "\\" and not (place > 1 and text[place - 2] == "\\"):
            continue
        if found[0] == "{":
            opened.append(place)
        elif opened:
            pairs[opened.pop()] = place
    return pairs


_END = re.compile(r"[$\n]|\\[\])]|\.(?=\s|$)")


def _cut(text: str, start: int) -> tuple[str, int]:
    """A box without its closing brace, or without any: to the end of the formula or line."""
    found = _END.search(text, start, start + LONGEST + 1)
    end = found.start() if found else min(len(text), start + LONGEST + 1)
    return text[start:end], end


# --- without a box ----------------------------------------------------------------------------------------------------


def announced(text: str) -> str:
    """What follows the last "answer" that is followed by something: a formula close by, or the rest of the sentence."""
    anchors = [found.end() for found in _ANCHOR.finditer(text)][-ANCHORS:]
    for place in reversed(anchors):
        window = text[place : place + LONGEST]
        opening = _MATH.search(window, 0, NEAR)
        lead = _LEAD.match(window)
        start = lead.end() if lead is not None else 0
        if opening is not None:
            formulas = _formulas(window)
            if formulas and formulas[0][0] == opening.start():
                end = formulas[0][1]
                for later in formulas[1:]:
                    if not _JOINT.fullmatch(window, end, later[0]):
                        break
                    end = later[1]
                return window[formulas[0][0] : end].replace("$", " ").strip()
        if start:
            sentence = _SENTENCE.search(window, start)
            rest = window[start : sentence.start() if sentence else len(window)].translate(CHARACTERS).strip(" *_$.")
            rest = rest.partition("</")[0].strip()  # <answer>42</answer>
            if rest and len(rest) <= 100:
                return rest
    return ""

r"""The form of an answer: a list, a set, a point, an interval, an inequality, an equation, a matrix, words, a value.

math-verify's parser reads these too, but forgets what decides: `n=2,3,4` and `n=1,2,3` are the same there, `2516_8` and
`2516_9`, `x<12.5` and an interval are different kinds of things (Math-Verify 10, 14, 25, 47, 60).
"""

import functools
from collections.abc import Iterable

from openrs.rewards.inequalities import ORDER, apart, as_region, finite, inequality, is_name
from openrs.rewards.normalize import normalized, tokens
from openrs.rewards.numerals import recurring, scientific, thousands
from openrs.rewards.quantities import quantity
from openrs.rewards.values import Grid, Items, Piece, Ratio, Region, Relation, Shown, Value, Words, flattened, plain

OPENING, CLOSING = {"(", "[", r"\{", "{", r"\begin"}, {")", "]", r"\}", "}", r"\end"}
RELATIONS = ORDER | {"=", r"\approx", r"\in", r"\equiv", r"\to", r"\rightarrow", r"\Rightarrow", r"\implies"}
MATRICES = {f"{kind}matrix" for kind in ("p", "b", "B", "", "small")} | {"array"}
SYSTEMS = {"cases", "aligned", "align", "gathered", "split"}  # a list of equations, one a line
DEEPEST = 12  # brackets in brackets
LONGEST = 4000  # characters that are read at all
MOST_ITEMS = 100


@functools.lru_cache(maxsize=32)
def readings(text: str) -> tuple[Value, ...]:
    r"""The ways in which a text can be read, the likeliest first; none where there is nothing to read.

    More than one where writings mean two things: `1,234` a number or two, `3e-8` a power of ten or 3e - 8.
    """
    if len(text) > LONGEST:
        return ()
    text = recurring(normalized(text))
    ways = [scientific(thousands(text)), scientific(thousands(text, commas=False))]
    if "e-" in text or "e+" in text:
        ways.append(thousands(text))
    return tuple(dict.fromkeys(value for way in dict.fromkeys(ways) if (value := read(way)) is not None))


def read(text: str) -> Value | None:
    return _read(tokens(text), 0)


def _read(parts: list[str], depth: int) -> Value | None:
    parts = _trimmed(parts)
    if not parts or depth > DEEPEST:
        return None
    if parts[0] == r"\begin" and "".join(parts[2:3]) in SYSTEMS and parts[-2:] == [parts[2], "}"]:
        inside = [{r"\\": ",", "&": " "}.get(part, part) for part in parts[4:-4]]
        return _read(inside, depth + 1)
    if parts[0] == "]" and parts[-1] in {"[", "]", ")"} and len(parts) > 3:
        parts = ["(", *parts[1:-1], ")" if parts[-1] == "[" else parts[-1]]  # ]0,1[ of French schools
    elif parts[0] in {"[", "("} and parts[-1] == "[" and len(parts) > 3:
        parts = [*parts[:-1], ")"]
    if r"\cup" in parts:
        return _union(_split(parts, {r"\cup"}, flat=True)[0], depth)
    pieces, marks = _split(parts, {",", ";", "and", "or", "AND", "OR"})
    pieces = [piece for piece in map(_trimmed, pieces) if piece]
    if marks and pieces:  # the answer to "and, or xor?" is a word
        return _list(pieces, marks, depth)
    sides, operators = _split(parts, RELATIONS)
    if operators:
        return _relation(sides, operators, depth)
    return _one(parts, depth)


def _all(pieces: Iterable[list[str]], depth: int) -> tuple[Value, ...] | None:
    """Each of them as it reads one level deeper; None where one cannot be read."""
    values = [_read(piece, depth + 1) for piece in pieces]
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _trimmed(parts: list[str]) -> list[str]:
    start, end = 0, len(parts)
    while start < end and (parts[start].isspace() or parts[start] in {"=", ":", ",", ";", r"\approx"}):
        start += 1
    while end > start and (parts[end - 1].isspace() or parts[end - 1] in {".", ",", ";", ":", "!?", "\\"}):
        end -= 1
    return parts[start:end]


def _split(parts: list[str], marks: set[str], *, flat: bool = False) -> tuple[list[list[str]], list[str]]:
    r"""Cut at the marks that stand in no bracket; `\text{and}` is the mark `and`."""
    pieces: list[list[str]] = [[]]
    found: list[str] = []
    depth = place = bars = 0
    while place < len(parts):
        part = parts[place]
        if part == r"\text" and "and" in marks and parts[place + 1 : place + 2] == ["{"] and depth == 0:
            end = place + 2
            while end < len(parts) and parts[end] != "}":
                end += 1
            inside = "".join(parts[place + 2 : end]).strip(" ,;")
            if inside in {"and", "or", "", "&"}:
                pieces.append([])
                found.append(inside or ",")
            else:
                pieces[-1] += parts[place : end + 1]
            place = end + 1
            continue
        depth += (part in OPENING) - (part in CLOSING)
        bars += part == "|"
        if part in marks and (depth == 0 or flat) and not (bars % 2 and part == ","):
            pieces.append([])
            found.append(part)
        else:
            pieces[-1].append(part)
        place += 1
    return pieces, found


def _list(pieces: list[list[str]], marks: list[str], depth: int) -> Value | None:  # noqa: PLR0911 - forms
    known = _all(pieces, depth) if len(pieces) <= MOST_ITEMS else None
    if known is None:
        return None
    values = flattened(known)
    if len(values) == 1:
        return values[0]
    regions = [value for value in values if isinstance(value, Region)]
    if len(regions) == len(values):
        if "and" in marks or not apart(regions):
            return Relation(tuple(["and"] * (len(regions) - 1)), tuple(regions), ())
        return Region(tuple(piece for region in regions for piece in region.pieces))
    first, *rest = values
    if isinstance(first, Relation) and set(first.operators) == {"="}:
        if not any(isinstance(value, Relation | Region) for value in rest):  # n = 2, 3, 4
            return Relation(first.operators, (*first.sides[:-1], Items("list", (first.sides[-1], *rest))), first.texts)
        same = [v for v in values if isinstance(v, Relation) and v.operators == ("=",) and v.texts[0] == first.texts[0]]
        if len(same) == len(values):  # n = 2, n = 3
            return Relation(("=",), (first.sides[0], Items("list", tuple(v.sides[-1] for v in same))), first.texts)
    return Items("list", tuple(values))


def _union(pieces: list[list[str]], depth: int) -> Value | None:
    found: list[Piece] = []
    finite: list[Value] = []
    for part in pieces:
        value = _read(part, depth + 1)
        region = as_region(value) if value is not None else None
        if region is not None:
            found += region.pieces
        elif isinstance(value, Items) and value.kind == "set":
            finite += value.items
        elif isinstance(value, Relation) and value.operators in {(r"\in",), ("=",)} and as_region(value.sides[-1]):
            found += as_region(value.sides[-1]).pieces  # type: ignore[union-attr]
        else:
            return None
    found += [Piece(value, value, True, True) for value in finite]
    return Region(tuple(found))


def _relation(sides: list[list[str]], operators: list[str], depth: int) -> Value | None:
    texts = tuple("".join(side).strip() for side in sides)
    values = [_read(side, depth + 1) for side in sides]
    arrows = {r"\to", r"\rightarrow", r"\Rightarrow", r"\implies"}
    if set(operators) <= arrows:
        return values[-1]
    if operators == [r"\in"] and is_name(texts[0]):
        return values[1]
    if set(operators) <= ORDER and (region := inequality(operators, values, texts)) is not None:
        return region
    known = tuple(value for value in values if value is not None)
    return Relation(tuple(operators), known, texts) if len(known) == len(values) else None


def _one(parts: list[str], depth: int) -> Value | None:  # noqa: PLR0911 - a table of forms
    """What has neither commas nor relations outside of brackets."""
    first, last = parts[0], parts[-1]
    if r"\pm" in parts or r"\mp" in parts:
        return _both_signs(parts, depth)
    if first == r"\begin" and (grid := _grid(parts, depth)) is not None:
        return grid
    if first in OPENING - {r"\begin"} and _closes(parts) == len(parts) - 1:
        return _bracketed(parts, depth)
    if first == "(" and last == ")" and "," in parts:  # (2,3)(2,7): points side by side
        end = _closes(parts)
        if end is not None and parts[end + 1 :] and _trimmed(parts[end + 1 :])[0] == "(":
            return _list([parts[: end + 1], parts[end + 1 :]], [","], depth)
    text = "".join(parts)
    if text == r"\mathbb{R}" or (r"\backslash" in parts and text.lstrip().startswith(r"\mathbb{R")):
        return _without(text.partition(r"\backslash")[2], depth)
    terms = _split(parts, {":"})[0]
    if len(terms) > 1 and quantity(text).time is None:
        known = _all(terms, depth)
        return Ratio(known) if known is not None else None
    return Words(text.strip()) if _is_words(parts) else quantity(text)


def _both_signs(parts: list[str], depth: int) -> Value | None:
    upper, lower = {r"\pm": "+", r"\mp": "-"}, {r"\pm": "-", r"\mp": "+"}
    both = _all(([signs.get(part, part) for part in parts] for signs in (upper, lower)), depth)
    return Items("list", both) if both is not None else None


def _closes(parts: list[str]) -> int | None:
    """Where the bracket that opens the text is closed."""
    depth = 0
    for place, part in enumerate(parts):
        depth += (part in OPENING) - (part in CLOSING)
        if depth == 0:
            return place
    return None


def _bracketed(parts: list[str], depth: int) -> Value | None:
    first, last, inside = parts[0], parts[-1], parts[1:-1]
    if first == r"\{":
        for bar in ("|", r"\mid", ":"):
            if bar in inside and any(operator in inside for operator in RELATIONS):
                return _read(inside[inside.index(bar) + 1 :], depth + 1)  # {x | x > 3}
    pieces, marks = _split(inside, {",", ";"})
    known = _all((piece for piece in pieces if _trimmed(piece)), depth)
    if not known or len(known) > MOST_ITEMS:
        return Words("".join(parts)) if not inside else None
    if first == r"\{":
        return Items("set", tuple(flattened(known)))
    if not marks:
        return known[0] if first in {"(", "{"} and last in {")", "}"} else quantity("".join(parts))
    if len(known) == 2 and (first == "[" or last == "]"):
        return Region((Piece(finite(known[0]), finite(known[1]), first == "[", last == "]"),))
    return Items("square" if first == "[" else "tuple", known)


def _without(removed: str, depth: int) -> Value | None:
    r"""`\mathbb{R}`, or that without a few numbers."""
    if not removed.strip():
        return Region((Piece(None, None, False, False),))
    value = _read(tokens(removed), depth + 1)
    if isinstance(value, Items) and len(value.items) == 1:
        return Region((Piece(None, value.items[0], False, False), Piece(value.items[0], None, False, False)))
    return None


def _grid(parts: list[str], depth: int) -> Value | None:
    kind = "".join(parts[2:-1]).partition("}")[0]
    if kind not in MATRICES or parts.count(r"\begin") != 1:
        return None
    start = parts.index("}") + 1
    if kind == "array" and parts[start : start + 1] == ["{"]:
        start = parts.index("}", start) + 1
    end = parts.index(r"\end") if r"\end" in parts else len(parts)
    if _trimmed(parts[end + 4 :]):
        return None
    lines = [line for line in _split(parts[start:end], {r"\\"})[0] if _trimmed(line)]
    rows = [row for line in lines if (row := _all(_split(line, {"&"})[0], depth)) is not None]
    return Grid(tuple(rows)) if rows and len(rows) == len(lines) else None


def _is_words(parts: list[str]) -> bool:
    r"""Only letters and `\text`, and more than a product of variables."""
    word = any(part == r"\text" or (part.isalpha() and len(part) > 1) for part in parts)
    return word and all(
        part.isalpha()
        or part.isspace()
        or part in {r"\text", "{", "}", "-", "(", ")", ".", "'"}
        or (not part.isalnum() and part in '?!,;:"&/')
        for part in parts
    )


def shown(text: str) -> list[object]:
    """A text and what it was read as, for a person and for majority votes: numbers in one writing."""
    values = readings(text)
    known = values and not isinstance(values[0], Words)
    return [text, Shown(plain(values[0]))] if known else [text] if text else []

r"""Is this the same answer? Compares two readings (reading.py): the reference answer's form decides what is asked.

Conventions, where mathematics alone does not decide, are listed in docs/judging.md: a unit, a percent sign, a degree
sign or a base may be left out; sets and lists have no order, points and intervals have; a rounded decimal is not the
exact value.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TypeVar

from openrs.rewards.expressions import (
    UnreadableError,
    equal_numbers,
    expression,
    number,
    rounds,
    same_expression,
    value_of,
)
from openrs.rewards.inequalities import ORDER, as_region, is_name, solved
from openrs.rewards.normalize import normalized, tokens
from openrs.rewards.quantities import UNITS, Quantity, quantity
from openrs.rewards.reading import readings
from openrs.rewards.values import Grid, Items, Piece, Ratio, Region, Relation, Value, Words

CHOICES = "ABCDEFGHIJ"
T = TypeVar("T")


def equivalent(gold: str, answer: str) -> bool:
    """Whether two texts (LaTeX, without dollars or box) are one answer in some reading of each."""
    if len(gold) > 4000 or len(answer) > 4000:
        return False
    plain = normalized(gold), normalized(answer)
    if _bare(plain[0]) == _bare(plain[1]) != "":
        return True
    choice = same_choice(*plain)
    if choice is not None:
        return choice
    answers = readings(answer)
    if any(contradicts(value) for value in answers):
        return False
    return any(same(left, right) for left in readings(gold) for right in answers)


def _bare(text: str) -> str:
    r"""Without what `\text` puts around words, and without blanks but those that part numbers: `18, 560`."""
    dress = {r"\text", "{", "}"} if r"\text" in text else set()
    parts = ["", *(part for part in tokens(text) if part not in dress), ""]
    beside = zip(parts, parts[1:], parts[2:], strict=False)
    return "".join(part for left, part, right in beside if not part.isspace() or (left == "," and right.isdigit()))


def same_choice(gold: str, answer: str) -> bool | None:
    r"""Letters of multiple choice: `C`, `(C)`, `\text{C}`, `C) 42`. None where the gold is no such letter."""
    wanted, gold_rest = _choice(gold)
    if not wanted:
        return None
    given, rest = _choice(answer)
    if given:
        return given == wanted
    if gold_rest:
        return any(same(left, right) for left in readings(gold_rest) for right in readings(answer))
    return None if rest else False


def _choice(text: str) -> tuple[str, str]:
    """The letter and what stands behind it; no letter where the text is something else."""
    bare = "".join(part for part in tokens(text) if part not in {r"\text", "{", "}"}).strip()
    bracketed = bare.startswith("(")
    inner = bare.removeprefix("(").lstrip()
    letter, rest = inner[:1], inner[1:].lstrip()
    if not letter or letter not in CHOICES:
        return "", bare
    if not rest or rest in {")", ".", ")."}:
        return letter, ""
    if rest[0] == ")" or (rest[0] in ".:" and not bracketed):
        return letter, rest[1:].strip()
    return "", bare


# --- equations --------------------------------------------------------------------------------------------------------


def contradicts(value: Value) -> bool:
    """Whether a chain of equations says of two numbers that they are equal which are not: `1=2=3=4=5`, `3=5`.

    Rounding is no lie: `14/3 = 4.67` and `2\\pi \\approx 6.28` pass.
    """
    if isinstance(value, Items):
        return any(contradicts(item) for item in value.items)
    if not isinstance(value, Relation) or not set(value.operators) <= {"=", r"\approx"}:
        return False
    constants = [side for side in value.sides if isinstance(side, Quantity) and _constant(side) is not None]
    return any(not _nearly(left, right) for left, right in pairwise(constants))


def _constant(side: Quantity) -> float | None:
    if side.base:
        return float(int(side.core.partition(".")[0], side.base)) if side.base <= 36 else None
    plain = number(side.core)
    try:
        if plain is not None:
            return float(plain[0])
        tree = expression(side.core)
        value = value_of(tree, {}) if not tree.free_symbols else None
        return float(value) if value is not None else None
    except (UnreadableError, OverflowError, TypeError, ValueError):
        return None


def _nearly(left: Quantity, right: Quantity) -> bool:
    """Equal, or one of them a decimal and as close as its last digit."""
    if same(left, right):
        return True
    a, b = _constant(left), _constant(right)
    if a is None or b is None:
        return False
    if left.base or right.base:
        return a == b
    steps = [10.0 ** -len(side.core.rstrip().partition(".")[2]) for side in (left, right) if "." in side.core]
    return bool(steps) and abs(a - b) <= max(steps)


def _same_relation(gold: Relation, answer: Relation) -> bool:
    if gold.operators[0] == "and" or answer.operators[0] == "and":
        return gold.operators == answer.operators and _unordered(gold.sides, answer.sides)
    if {*gold.operators, *answer.operators} <= {"=", r"\approx"}:
        left, right = gold.texts[0].replace(" ", ""), answer.texts[0].replace(" ", "")
        if left == right and same(gold.sides[-1], answer.sides[-1]):
            return True
        if is_name(left) and is_name(right) and _function_of(left) and _function_of(right):
            return same(gold.sides[-1], answer.sides[-1])
        return _same_line(gold, answer)
    return gold.operators == answer.operators and _ordered(gold.sides, answer.sides)


def _function_of(left: str) -> bool:
    """`f(x)` and `y` both name a function of x."""
    return left == "y" or (len(left) > 3 and left[1] == "(" and left[-1] == ")")


def _same_line(gold: Relation, answer: Relation) -> bool:
    r"""`2x-y+7=0` is `y=2x+7` and `4x-2y+14=0`: the differences of the sides have a constant ratio."""
    if not all(len(r.sides) == 2 and all(isinstance(side, Quantity) for side in r.sides) for r in (gold, answer)):
        return False
    try:
        left, right = (expression(f"({r.texts[0]})-({r.texts[1]})") for r in (gold, answer))
        if left.free_symbols != right.free_symbols or not left.free_symbols or right == 0:
            return False
        ratio = (left / right).cancel()
        return bool(ratio.is_number and ratio != 0)
    except UnreadableError:
        return False


# --- everything -------------------------------------------------------------------------------------------------------


def same(gold: Value, answer: Value) -> bool:  # noqa: PLR0911 - a table of forms
    """Whether two values are one. Never raises for what is in them."""
    if gold == answer:
        return True
    gold, answer = _solved(gold, answer), _solved(answer, gold)
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return _same_relation(gold, answer)
    if isinstance(answer, Relation):
        return _against_equation(gold, answer)
    if isinstance(gold, Relation):
        names = set(gold.operators) <= {"=", r"\approx"} and is_name(gold.texts[0])
        exact = names or r"\approx" in gold.operators or _numeric(gold)
        return exact and any(same(side, answer) for side in gold.sides[0 if _numeric(gold) else -1 :])
    if isinstance(gold, Region) or isinstance(answer, Region):
        return _same_region(gold, answer)
    if isinstance(gold, Grid) or isinstance(answer, Grid):
        return _same_grid(gold, answer)
    if isinstance(gold, Items) or isinstance(answer, Items):
        return _same_items(gold, answer)
    if isinstance(gold, Ratio) or isinstance(answer, Ratio):
        return _same_ratio(gold, answer)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _letters(gold) == _letters(answer) != "" or _as_products(gold, answer)
    return same_quantity(gold, answer)


def _solved(value: Value, other: Value) -> Value:
    """An inequality against another or against an interval: as what solves it."""
    if isinstance(value, Relation) and value.operators[0] in ORDER and isinstance(other, Relation | Region | Items):
        return solved(value) or value
    return value


def _numeric(relation: Relation) -> bool:
    return all(isinstance(side, Quantity) and _constant(side) is not None for side in relation.sides)


def _against_equation(gold: Value, answer: Relation) -> bool:
    if not set(answer.operators) <= {"=", r"\approx", r"\in"}:
        return False
    if r"\approx" in answer.operators:
        exact = [side for side, operator in zip(answer.sides, (*answer.operators, r"\approx"), strict=True)]
        return any(same(gold, side) for side in exact if not isinstance(side, Quantity) or not is_name(side.core))
    return same(gold, answer.sides[-1]) or (_numeric(answer) and any(same(gold, side) for side in answer.sides))


def _same_region(gold: Value, answer: Value) -> bool:
    left, right = as_region(gold), as_region(answer)
    if left is None or right is None:
        return False
    return len(left.pieces) == len(right.pieces) and _matched(left.pieces, right.pieces, _same_piece)


def _same_piece(left: Piece, right: Piece) -> bool:
    lows = (left.low, left.low_closed, right.low, right.low_closed)
    highs = (left.high, left.high_closed, right.high, right.high_closed)
    return all(
        a is b if a is None or b is None else a_closed == b_closed and same(a, b)
        for a, a_closed, b, b_closed in (lows, highs)
    )


def _same_grid(gold: Value, answer: Value) -> bool:
    left, right = (value.rows if isinstance(value, Grid) else None for value in (gold, answer))
    if left is None or right is None:
        cells = [cell for row in left or right or () for cell in row]
        other = answer if left is not None else gold
        vector = all(len(row) == 1 for row in left or right or ()) or len(left or right or ()) == 1
        ordered = isinstance(other, Items) and other.kind in {"tuple", "square"}
        return vector and ordered and _ordered(cells, other.items)  # type: ignore[union-attr]
    return [len(row) for row in left] == [len(row) for row in right] and all(
        _ordered(a, b) for a, b in zip(left, right, strict=True)
    )


def _same_items(gold: Value, answer: Value) -> bool:
    left = gold if isinstance(gold, Items) else Items("one", (gold,))
    right = answer if isinstance(answer, Items) else Items("one", (answer,))
    free = {"list", "set", "one"}
    if (right.kind not in free and left.kind == "one") or (left.kind not in free and right.kind == "one"):
        return False
    if left.kind not in free:  # a point: its order counts, however the answer writes it
        return _ordered(left.items, _assigned(right.items)) if right.kind != "set" else False
    if any(isinstance(item, Quantity) and item.core == r"\ldots" for item in left.items):
        return _ordered(left.items, right.items)
    return _unordered(left.items, right.items) or _unordered(_assigned(left.items), _assigned(right.items))


def _assigned(items: Sequence[Value]) -> Sequence[Value]:
    """`x = 1, y = 2` as 1, 2."""
    names = [item for item in items if isinstance(item, Relation) and item.operators == ("=",)]
    return [item.sides[-1] for item in names] if len(names) == len(items) else items


def _ordered(left: Sequence[Value], right: Sequence[Value]) -> bool:
    return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))


def _unordered(left: Sequence[Value], right: Sequence[Value]) -> bool:
    """As sets: what stands twice counts once."""
    if len(left) == len(right) and _ordered(left, right):
        return True
    if max(len(left), len(right)) > 2 * min(len(left), len(right)) + 1:
        return False
    once, twice = _different(left), _different(right)
    return len(once) == len(twice) and _matched(once, twice, same)


def _different(items: Sequence[Value]) -> list[Value]:
    kept: list[Value] = []
    for item in items:
        if not any(same(other, item) for other in kept):
            kept.append(item)
    return kept


def _matched(left: Sequence[T], right: Sequence[T], equal: Callable[[T, T], bool]) -> bool:
    waiting = list(right)
    for item in left:
        place = next((place for place, other in enumerate(waiting) if equal(item, other)), None)
        if place is None:
            return False
        del waiting[place]
    return not waiting


def _same_ratio(gold: Value, answer: Value) -> bool:
    """3:4 is 6:8, and the fraction 3/4."""
    left, right = (value.terms if isinstance(value, Ratio) else (value,) for value in map(_untimed, (gold, answer)))
    texts = [[term.core if isinstance(term, Quantity) else "" for term in side] for side in (left, right)]
    if len(left) == len(right) == 1 or not all(text for side in texts for text in side):
        return False
    if len(left) == len(right):
        a, b = texts
        return all(_equal(rf"({x})\cdot({b[0]})", rf"({y})\cdot({a[0]})") for x, y in zip(a, b, strict=True))
    ratio, one = (texts[0], texts[1][0]) if len(left) > 1 else (texts[1], texts[0][0])
    return len(ratio) == 2 and _equal(rf"\frac{{{ratio[0]}}}{{{ratio[1]}}}", one)


def _untimed(value: Value) -> Value:
    """`23:17` looks like a time of day; against a ratio or a fraction it is a ratio."""
    if isinstance(value, Quantity) and value.time and value.time[1] and not value.time[2] and not value.time[3]:
        return Ratio(tuple(quantity(str(part)) for part in value.time[:2]))
    return value


def _letters(value: Value) -> str:
    """For words: without blanks, case, dress, and the article or full stop around them."""
    if not isinstance(value, Words | Quantity):
        return ""
    kept = "".join(part for part in tokens(value.text) if part not in {r"\text", "{", "}"}).casefold()
    phrase = kept.strip(" .!\"'").removeprefix("the ").removeprefix("a ").removeprefix("an ")
    return "".join(c for c in phrase if not c.isspace() and c not in "\"'")


def _as_products(gold: Value, answer: Value) -> bool:
    """`ab` and `ba`, where what looks like a word is a product of variables."""
    texts = [value.text if isinstance(value, Words | Quantity) else "" for value in (gold, answer)]
    if any(r"\text" in text or not text or " " in text.strip() or len(text) > 40 for text in texts):
        return False
    return _equal(texts[0], texts[1])


# --- one quantity -----------------------------------------------------------------------------------------------------


def same_quantity(gold: Quantity, answer: Quantity) -> bool:  # noqa: PLR0911 - a table of what is written around
    if gold.time and answer.time:
        return _same_time(gold.time, answer.time)
    if gold.time or answer.time:
        return _same_ratio(gold, answer)
    if gold.base or answer.base:
        return _same_base(gold, answer)
    if answer.symbol and not gold.symbol and not answer.percent:  # `5 m` for 5; but 5 is not `5m`
        return _equal(gold.core, answer.core)
    if gold.symbol or answer.symbol:
        return gold.symbol == answer.symbol and _equal(gold.core, answer.core)
    if not gold.core or not answer.core:
        return gold.text.replace(" ", "") == answer.text.replace(" ", "")
    if gold.percent != answer.percent:
        return _percent_left_out(gold, answer)
    if gold.degree != answer.degree:
        turned = [rf"\frac{{({q.core})\pi}}{{180}}" if q.degree else q.core for q in (gold, answer)]
        return _equal(gold.core, answer.core) or _equal(*turned)
    if gold.unit and answer.unit and gold.unit != answer.unit:
        (kind, size), (other_kind, other_size) = UNITS[gold.unit], UNITS[answer.unit]
        factors = [rf"\cdot\frac{{{s.numerator}}}{{{s.denominator}}}" for s in (size, other_size)]
        return kind == other_kind and _equal(f"({gold.core}){factors[0]}", f"({answer.core}){factors[1]}")
    return _equal(gold.core, answer.core)


def _percent_left_out(gold: Quantity, answer: Quantity) -> bool:
    r"""35\% is 0.35; and the sign may be left out, 35, unless the gold says that it means the share: 0.35."""
    (sign, bare) = (gold, answer) if gold.percent else (answer, gold)
    value = number(sign.core)
    hundredth = (
        rf"\frac{{{sign.core}}}{{100}}" if value is None else f"{value[0].numerator}/{value[0].denominator * 100}"
    )
    if _equal(hundredth, bare.core):
        return True
    plain = number(bare.core)
    share = not gold.percent and plain is not None and abs(plain[0]) <= 1
    return not share and _equal(sign.core, bare.core)


def _same_time(left: tuple[int, int, int, str], right: tuple[int, int, int, str]) -> bool:
    """12-hour and 24-hour; am and pm may be left out."""
    left_out = bool(left[3]) != bool(right[3])
    return left[1:3] == right[1:3] and (_hours(left) == _hours(right) or (left_out and left[0] == right[0]))


def _hours(time: tuple[int, int, int, str]) -> int:
    return time[0] % 12 + 12 * (time[3] == "pm") if time[3] else time[0]


def _same_base(gold: Quantity, answer: Quantity) -> bool:
    """The same digits in the same base; one side may leave out its base, as a unit."""
    if gold.base and answer.base and gold.base != answer.base:
        return False
    left, right = (q.core.replace(" ", "").lstrip("0").lower() for q in (gold, answer))
    return left == right and bool(left)


def _equal(gold: str, answer: str) -> bool:
    if gold.replace(" ", "") == answer.replace(" ", ""):
        return True
    left, right = number(gold), number(answer)
    if left is not None and right is not None:
        return equal_numbers(left, right)
    try:
        if same_expression(gold, answer):
            return True
    except UnreadableError:
        return False
    for plain, other in ((left, answer), (right, gold)):
        if plain is not None and plain[1]:
            return _rounded(plain, other)
    return False


def _rounded(decimal: tuple[Fraction, int], other: str) -> bool:
    value = value_of(expression(other), {})
    try:
        return value is not None and rounds(
            decimal[0], decimal[1], float(value / (decimal[0].numerator) * decimal[0].denominator)
        )
    except (OverflowError, TypeError, ZeroDivisionError):
        return False

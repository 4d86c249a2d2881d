r"""What an answer can be, once its form is known (reading.py), and how it is shown to a person.

Inequalities and intervals are one thing, a union of intervals (Math-Verify 10 and 25).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from openrs.rewards.expressions import UnreadableError, expression, number
from openrs.rewards.normalize import tokens
from openrs.rewards.quantities import Quantity, quantity

MIRRORED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
ORDER = {"<", ">", r"\le", r"\ge", r"\ne"}


@dataclass(frozen=True, slots=True)
class Words:
    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """kind: `list` (no brackets), `set`, `tuple` (round brackets), `square`. A list and a set have no order."""

    kind: str
    items: tuple["Value", ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """An interval; None is an infinite end."""

    low: "Value | None"
    high: "Value | None"
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True, slots=True)
class Region:
    """Real numbers: a union of intervals."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """`sides` with `operators` between them."""

    operators: tuple[str, ...]
    sides: tuple["Value", ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    rows: tuple[tuple["Value", ...], ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    terms: tuple["Value", ...]


Value = Words | Items | Region | Relation | Grid | Ratio | Quantity


def flattened(values: Iterable[Value]) -> list[Value]:
    """With the parts of each list in its place."""
    each = (value.items if isinstance(value, Items) and value.kind == "list" else (value,) for value in values)
    return [part for parts in each for part in parts]


class Shown:
    """Prints as a value."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def plain(value: Value) -> str:
    if isinstance(value, Quantity):
        known = number(value.core)
        return f"{known[0]}{'%' * value.percent}" if known is not None else value.core
    if isinstance(value, Items):
        return f"{value.kind}({', '.join(map(plain, value.items))})"
    if isinstance(value, Relation):
        return plain(value.sides[-1])
    if isinstance(value, Words):
        return value.text
    return type(value).__name__.lower()


# --- inequalities and intervals ---------------------------------------------------------------------------------------


def as_region(value: Value | None) -> Region | None:
    """An interval from what may be a point as well: `(a, b)`."""
    if isinstance(value, Region):
        return value
    if isinstance(value, Items) and value.kind == "tuple" and len(value.items) == 2:
        low, high = value.items
        return Region((Piece(finite(low), finite(high), False, False),))
    return None


def finite(value: Value) -> Value | None:
    infinite = isinstance(value, Quantity) and value.core.replace(" ", "") in {r"\infty", r"+\infty", r"-\infty"}
    return None if infinite else value


def apart(regions: list[Region]) -> bool:
    """Whether a comma between inequalities means `or`: one goes to the left, the other to the right."""
    lows = [piece.low is None for region in regions for piece in region.pieces]
    highs = [piece.high is None for region in regions for piece in region.pieces]
    return not all(lows) and not all(highs)


def is_name(text: str) -> bool:
    """Whether the left side of an equation only names what the right side is: `x`, `f(x)`, `a_{n}`, `AB`, `x+y`."""
    bare = text.strip()
    inside = any(c in bare for c in "^=")
    digits = any(c.isdigit() for c in bare) and "_" not in bare and "(" not in bare
    return bool(bare) and not inside and not digits and len(bare) < 80 and any(c.isalpha() for c in bare)


def is_variable(text: str) -> bool:
    parts = [part for part in tokens(text) if not part.isspace()]
    plain = len(parts) == 1 or (len(parts) >= 4 and parts[1] == "_")
    return plain and (
        (parts[0].isalpha() and len(parts[0]) == 1)
        or (parts[0][0] == "\\" and parts[0][1:].isalpha() and (parts[0] not in {r"\pi", r"\infty", r"\emptyset"}))
    )


def inequality(operators: list[str], values: list[Value | None], texts: tuple[str, ...]) -> Region | None:
    r"""`a < x \le b`, `x > a`, `a > x`, `x \ne a` as intervals; None where no side is one variable alone."""
    places = [place for place, text in enumerate(texts) if is_variable(text)]
    if len(operators) == 1 and places:
        place = places[0]
        other = values[1 - place]
        if other is None:
            return None
        operator = operators[0] if place == 0 else MIRRORED.get(operators[0], operators[0])
        if operator == r"\ne":
            return Region((Piece(None, other, False, False), Piece(other, None, False, False)))
        low = operator in {">", r"\ge"}
        closed = operator in {r"\le", r"\ge"}
        return Region((Piece(other, None, closed, False) if low else Piece(None, other, False, closed),))
    upward = set(operators) <= {"<", r"\le"}
    downward = set(operators) <= {">", r"\ge"}
    if len(operators) == 2 and 1 in places and (upward or downward):
        start, end = (values[0], values[2]) if upward else (values[2], values[0])
        if start is None or end is None:
            return None
        ends = finite(start), finite(end)
        first, last = operators if upward else operators[::-1]
        return Region((Piece(*ends, first in {r"\le", r"\ge"}, last in {r"\le", r"\ge"}),))
    return None


def solved(relation: Relation) -> Region | None:
    r"""The solutions of `2x+1 > 3`, `|x| < 2`, by sympy; None where there is not one variable, or no intervals."""
    import sympy

    if len(relation.operators) != 1 or len(relation.texts) != 2:
        return None
    (operator,), (left, right) = relation.operators, relation.texts
    kinds = {"<": sympy.Lt, ">": sympy.Gt, r"\le": sympy.Le, r"\ge": sympy.Ge}
    try:
        difference = expression(f"({left})-({right})")
    except UnreadableError:
        return None
    if operator not in kinds or len(difference.free_symbols) != 1 or sympy.count_ops(difference) > 60:
        return None
    name = sympy.Symbol("t", real=True)
    try:
        inequation = kinds[operator](difference.subs(difference.free_symbols.pop(), name), 0)
        region = sympy.solve_univariate_inequality(inequation, name, relational=False)
    except TimeoutError:
        raise
    except Exception:  # noqa: BLE001 - named fault boundary, the grader: sympy raises anything
        return None
    parts = region.args if isinstance(region, sympy.Union) else (region,)
    if not all(isinstance(part, sympy.Interval) for part in parts):
        return None
    return Region(tuple(_piece(part) for part in parts))


def _piece(interval: Any) -> Piece:
    import sympy

    ends = (interval.start, interval.end)
    low, high = (None if end.is_infinite else quantity(str(sympy.latex(end))) for end in ends)
    return Piece(low, high, low is not None and not interval.left_open, high is not None and not interval.right_open)

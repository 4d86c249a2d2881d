"""What an answer can be, once its form is known (reading.py), and how it is shown to a person."""

from collections.abc import Iterable
from dataclasses import dataclass

from openrs.rewards.expressions import number
from openrs.rewards.quantities import Quantity


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

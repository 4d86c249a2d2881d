"""A problem on its way through the chain, and the parts (parquet files of a few thousand rows) that it travels in."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from openrs.run.confined import replacing

PART_ROWS = 2048
PART_BYTES = 16 * 2**20  # of text


@dataclass(frozen=True, slots=True)
class Row:
    """One problem.

    number: counted from 0 over all sources. id: unique, SOURCE/INDEX or SOURCE/what the source calls it. place: file
    and line (row, for parquet), for a person. answer: as short as the source has it; solution: the text that
    holds the reference answer as training reads it. right: how many of `samples` completions were judged correct.
    """

    number: int
    id: str
    source: str
    place: str
    problem: str
    solution: str | None
    answer: str
    level: str | None = None
    tokens: int | None = None
    right: int | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """A removed row. reason: short, the same for all rows of a kind; detail: what in this row; `other`: id of the row
    or benchmark question that it is a copy of."""

    row: Row
    stage: str
    reason: str
    detail: str = ""
    other: str = ""


@dataclass(frozen=True, slots=True)
class Out:
    """Why a stage takes a row out."""

    reason: str
    detail: str = ""
    other: str = ""
    row: Row | None = None
    """The row with what the stage learnt about it, where that is worth keeping."""


_NAMES = tuple(field.name for field in fields(Row))
_VALUES = attrgetter(*_NAMES)
_WHY = ("stage", "reason", "detail", "other")
_NUMBERS = {"number": "int64", "tokens": "int32", "right": "int32", "samples": "int32"}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    _write(path, _NAMES, [_VALUES(row) for row in rows])


def write_gone(path: Path, gone: Iterable[Gone]) -> None:
    _write(path, (*_NAMES, *_WHY), [(*_VALUES(g.row), g.stage, g.reason, g.detail, g.other) for g in gone])


def _write(path: Path, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """A parquet file, whole or not at all, and the same bytes for the same rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, _NUMBERS.get(name, "string"))()) for name in names])
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    table = pa.table([pa.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")


def read_rows(path: Path) -> list[Row]:
    return [Row(*values) for values in _read(path)]


def read_gone(path: Path) -> list[Gone]:
    return [Gone(Row(*values[: len(_NAMES)]), *values[len(_NAMES) :]) for values in _read(path)]


def _read(path: Path) -> Iterator[tuple[Any, ...]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, use_threads=False)
    return zip(*(column.to_pylist() for column in table.columns), strict=True)

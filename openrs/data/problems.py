"""Training problems: from JSONL, parquet, folders of them, the hub, nested schemas like verl's, or the demo's sums."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrs.config.names import is_hub_name
from openrs.data.problem import Problem
from openrs.data.rows import MISSING, Row, cell, column_names, data_files, hub_rows, jsonl_rows, parquet_rows
from openrs.errors import UserError
from openrs.run.files import sha256

if TYPE_CHECKING:
    from openrs.config.schema import Data


@dataclass(frozen=True, slots=True)
class Problems:
    """What was read, and what became of every row."""

    rows: list[Problem]
    read: int
    without_answer: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """File name -> SHA-256, for the manifest."""


def load_problems(data: "Data") -> Problems:
    """Read the training problems that a recipe names.

    Raises UserError for a missing file, a missing column (listing those there are), an empty data set, rows without an
    answer (unless `data.missing_answer: drop`), and a hub that cannot be reached.
    """
    if data.source == "toy-sums":
        from openrs.data.arithmetic import train_problems

        rows = train_problems()[: data.limit]
        return Problems(rows, len(rows))
    files = None if is_hub_name(data.source) else data_files(Path(data.source))
    source = _file_rows(files) if files is not None else _hub_rows(data)
    problems, missing, read = [], [], 0
    for index, row in enumerate(source):
        if data.limit is not None and read >= data.limit:
            break
        read += 1
        problem = _text(column(row, data.problem_column, data.source))
        answer = _text(column(row, data.answer_column, data.source))
        if not problem.strip() or not answer.strip():
            missing.append(str(index))
            continue
        problem = problem.removesuffix(data.strip_suffix)
        problems.append(Problem(str(index), problem, data.answer_template.replace("{answer}", answer)))
    if missing and data.missing_answer == "refuse":
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "") + " (counted from 0)"
        raise UserError(
            f"{data.source}: {len(missing)} of {read} rows have no problem or answer: row {shown}",
            "a reward cannot be computed without a reference answer",
            "fix the rows, or set data.missing_answer: drop",
        )
    if not problems:
        raise UserError(
            f"{data.source} has no problems in it", fix="give a file with at least one row that has an answer"
        )
    return Problems(problems, read, missing, {path.name: sha256(path) for path in files or []})


def column(row: Row, name: str, source: str) -> Any:
    """The value under a dotted name. Refuses, listing what there is."""
    value = cell(row, name)
    if value is MISSING:
        raise UserError(
            f"{source} has no column {name}",
            f"the columns there are: {', '.join(column_names(row))}",
            "name the right one in data.problem_column and data.answer_column (dots go into nested columns)",
        )
    return value


def _text(value: Any) -> str:
    """A cell as text. A whole number stored as a float reads as the number: 27.0 is the answer 27."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _file_rows(files: Iterable[Path]) -> Iterator[Row]:
    for path in files:
        yield from (parquet_rows(path) if path.suffix == ".parquet" else jsonl_rows(path))


def _hub_rows(data: "Data") -> Iterator[Row]:
    fix = "check the name and the network, openrs fetch it beforehand, or give a local file in data.source"
    return hub_rows(data.source, data.revision, data.subset, data.split, fix)

"""Training problems from anywhere: JSONL, parquet, folders of them, the hub, nested schemas like verl's, or made."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrs.config.names import is_hub_name
from openrs.data.problem import Problem
from openrs.data.rows import MISSING, Row, cell, column_names, hub_rows, jsonl_rows, parquet_rows
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
    if data.source == "made":
        from openrs.data.arithmetic import train_problems

        rows = train_problems()[: data.limit]
        return Problems(rows, len(rows))
    files = _files(data)
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
            "a reward cannot be computed without a gold",
            "mend the rows, or set data.missing_answer: drop",
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


def _files(data: "Data") -> list[Path] | None:
    """The files that the source names, or None when it names a hub data set."""
    if is_hub_name(data.source):
        return None
    path = Path(data.source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in {".jsonl", ".parquet"})
        if not files:
            raise UserError(
                f"{path} has no .jsonl or .parquet file in it", fix="give a folder with training files in it"
            )
        return files
    if not path.is_file():
        raise UserError(
            f"there is no file {path}", fix="give data.source as a path, a hub data set (owner/name), or `made`"
        )
    if path.suffix not in {".jsonl", ".parquet"}:
        raise UserError(f"{path} is neither .jsonl nor .parquet", fix="convert it to one of the two")
    return [path]


def _file_rows(files: Iterable[Path]) -> Iterator[Row]:
    for path in files:
        yield from (parquet_rows(path) if path.suffix == ".parquet" else jsonl_rows(path))


def _hub_rows(data: "Data") -> Iterator[Row]:
    fix = "check the name and the network, openrs fetch it beforehand, or give a local file in data.source"
    return hub_rows(data.source, data.revision, data.subset, data.split, fix)

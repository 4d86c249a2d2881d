"""Raw problems from files and the hub, row by row: what cannot be read is reported by line and stops nothing.

Only what is wrong with a whole source is refused: no file, no parquet, no row with the columns that were asked for.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrs.curation.rows import Row
from openrs.curation.settings import Curation, Source
from openrs.data.rows import MISSING, Raw, cell, column_names, data_files, hub_rows, latin_1
from openrs.data.rows import raw_rows as rows_of_file
from openrs.data.shapes import answer_text, odd_character, own_answer, pick, question_text, read_as, shape_of
from openrs.errors import UserError
from openrs.run.files import sha256

SHOWN = 2_000  # characters of a broken row that removed.parquet keeps


@dataclass(frozen=True, slots=True)
class Read:
    """A row to go on with, or (reason set) one that is removed at once."""

    row: Row
    reason: str = ""
    detail: str = ""


@dataclass(slots=True)
class Reader:
    """Reads all sources of a recipe, and counts. hashes: source -> SHA-256 over the rows as they went on; shapes:
    source -> what its rows were read as, and how many of them."""

    recipe: Curation
    counts: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Counter[str]] = field(default_factory=dict)

    def read_as(self) -> Iterator[str]:
        """One line a source, e.g. "read as: verl chat rows, answer from reward_model.ground_truth"."""
        for name, shapes in self.shapes.items():
            yield f"{name}: {read_as(shapes)}"

    def rows(self) -> Iterator[Read]:
        """Raises UserError for a source that cannot be read at all."""
        number = 0
        for name, source in self.recipe.sources.items():
            counted, with_problem, columns, broken = 0, 0, "", ""
            shapes = self.shapes.setdefault(name, Counter())
            digest = hashlib.sha256()
            for raw in _raw(source):
                if raw.row is not None and any(cell(raw.row, name) != value for name, value in source.where.items()):
                    continue
                if source.limit is not None and counted >= source.limit:
                    break
                read = _read(raw, number, name, counted, source, wants_box=self.recipe.boxed)
                number, counted = number + 1, counted + 1
                if raw.row is not None:
                    asked, answer = pick(raw.row, _list(source.problem))[0], _answer(raw.row, source)[0]
                    with_problem += bool(asked)
                    if asked and answer:
                        shapes[f"{shape_of(raw.row, asked, answer)}, answer from {answer}"] += 1
                    columns = columns or ", ".join(column_names(raw.row))
                broken = broken or raw.fault
                if not with_problem and counted == 1000:
                    break
                digest.update(json.dumps([read.row.problem, read.row.solution, read.row.answer]).encode())
                yield read
            if not with_problem:
                raise _nothing(name, source, counted, columns, broken)
            self.counts[name], self.hashes[name] = counted, digest.hexdigest()


def files_of(source: Source) -> list[Path] | None:
    """The files of a source, None for a hub data set. Raises UserError when there is none."""
    if source.hub is not None:
        return None
    return [file for path in _list(source.path) for file in data_files(Path(path).expanduser(), source.split)]


def identity(source: Source) -> Mapping[str, Any]:
    """What a source is, for the manifest and to know whether it changed: its files' SHA-256, or the hub's commit."""
    files = files_of(source)
    if files is not None:
        return {"files": {path.name: sha256(path) for path in files}}
    from openrs.hub import cache

    hub = source.hub or ""
    folder = cache.fetched("dataset", hub, source.revision)
    return {"hub": hub, "revision": source.revision, "commit": folder.name if folder is not None else None}


def raw_rows(source: Source, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The readable rows with some of their columns only."""
    if source.hub is None and all(str(path).endswith(".parquet") for path in files_of(source) or []):
        source = source.model_copy(
            update={"problem": list(columns), "answer": [], "solution": [], "id": [], "level": []}
        )
    return (raw.row for raw in _raw(source) if raw.row is not None)


def _raw(source: Source) -> Iterator[Raw]:
    files, hub = files_of(source), source.hub or ""
    if files is None:
        fix = "check the name and the network, openrs fetch it beforehand, or give a local file in its path"
        rows = hub_rows(hub, source.revision, source.subset, source.split, fix)
        for index, row in enumerate(rows):
            yield Raw(f"{hub}:{index + 1}", row)
        return
    asked = [source.problem, source.answer, source.solution, source.id, source.level, list(source.where)]
    for path in files:
        yield from rows_of_file(path, [name for names in asked for name in _list(names)])


def _read(raw: Raw, number: int, name: str, index: int, source: Source, *, wants_box: bool) -> Read:
    row = raw.row or {}
    own = pick(row, _list(source.id))[1]
    id_ = f"{name}/{index if own is MISSING or own is None else _shown(str(own))}"
    level = pick(row, _list(source.level))[1]
    level_text = str(level)[:50] if isinstance(level, str | int) and not isinstance(level, bool) else None
    asked = pick(row, _list(source.problem))[1]
    solution = pick(row, _list(source.solution))[1]
    cells = {
        "problem": question_text(asked),
        "answer": answer_text(_answer(row, source)[1]),
        "solution": _solution(own_answer(asked) if solution is MISSING else solution),
    }
    found: dict[str, str] = {}
    faults: list[str] = []
    for part, (text, fault) in cells.items():
        long = len(text) > source.max_characters
        found[part] = text[:SHOWN] if long else text
        if long or fault:
            faults.append(f"too long: the {part} has {len(text):,} characters" if long else fault)
    problem = found["problem"].removesuffix(source.strip_suffix)
    answer, solution = found["answer"], found["solution"] or None
    reason, detail = "not readable" if raw.row is None else "", raw.fault
    if not reason and faults:
        reason, _, detail = faults[0].partition(": ")
    elif not reason and not problem.strip():
        reason = "no problem"
    elif not reason and not answer and not (wants_box and solution):
        reason = "no answer"
    if reason:
        problem, answer, solution = _safe(problem), _safe(answer), None
        id_, level_text = _safe(id_), None
    return Read(Row(number, id_, name, raw.place, problem, solution, answer, level_text), reason, detail)


def _answer(row: Mapping[str, Any], source: Source) -> tuple[str, Any]:
    """The first of the answer's columns that has something in it, else the solution's name for what is said of it."""
    name, value = pick(row, _list(source.answer))
    if value is MISSING or value is None or value == "":
        return (pick(row, _list(source.solution))[0] or name), value
    return name, value


def _solution(value: Any) -> tuple[str, str]:
    if value is MISSING or value is None:
        return "", ""
    if not isinstance(value, str):
        return "", f"wrong type: the solution is a {type(value).__name__}, not a text"
    return value.strip(), odd_character(value, "solution")


def _list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _nothing(name: str, source: Source, counted: int, columns: str, broken: str) -> UserError:
    files = files_of(source)
    if counted == 0:
        return UserError(f"the source {name} has no rows", fix=f"look into its path, and at sources.{name}.where")
    if not columns and files:
        if "UTF-8" in broken:
            return latin_1(files[0])
        return UserError(
            f"no row of {files[0]} can be read: {broken}", fix="a JSON object a line, or one array of them"
        )
    return UserError(
        f"no row of the source {name} has a problem in {' or '.join(_list(source.problem))}",
        f"its columns: {columns}" if columns else "no row could be read",
        f"name the right one: --set sources.{name}.problem=COLUMN (and answer, solution); dots go into nested columns",
    )


def _safe(text: str) -> str:
    """What can be kept of a broken text: short, no NUL, no half characters."""
    return text[:SHOWN].replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode("utf-8")


def _shown(text: str) -> str:
    return _safe("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))

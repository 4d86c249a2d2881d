"""Raw problems from files and the hub, row by row: what cannot be read is reported by line and stops nothing.

Only what is wrong with a whole source is refused: no file, no parquet, no row with the columns that were asked for.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrs.curation.rows import Row
from openrs.curation.settings import Curation, Source
from openrs.data.rows import MISSING, cell, column_names, data_files, hub_rows
from openrs.errors import UserError
from openrs.run.files import json_lines, sha256

SHOWN = 2_000  # characters of a broken row that removed.parquet keeps


@dataclass(frozen=True, slots=True)
class Raw:
    """One row as it stands in the source, or the reason why there is none. size: bytes up to here, where known."""

    place: str
    row: Mapping[str, Any] | None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """A row to go on with, or (reason set) one that is removed at once."""

    row: Row
    reason: str = ""
    detail: str = ""


@dataclass(slots=True)
class Reader:
    """Reads all sources of a recipe, and counts. hashes: source -> SHA-256 over the rows as they went on."""

    recipe: Curation
    counts: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    def rows(self) -> Iterator[Read]:
        """Raises UserError for a source that cannot be read at all."""
        number = 0
        for name, source in self.recipe.sources.items():
            counted, with_problem, columns = 0, 0, ""
            digest = hashlib.sha256()
            for raw in _raw(source):
                if raw.row is not None and not _wanted(raw.row, source):
                    continue
                if source.limit is not None and counted >= source.limit:
                    break
                read = _read(raw, number, name, counted, source, wants_box=self.recipe.boxed)
                number, counted = number + 1, counted + 1
                if raw.row is not None:
                    with_problem += _pick(raw.row, source.problem) is not MISSING
                    columns = columns or ", ".join(column_names(raw.row))
                if not with_problem and counted == 1000:
                    break
                digest.update(json.dumps([read.row.problem, read.row.solution, read.row.answer]).encode())
                yield read
            if not with_problem:
                raise _nothing(name, source, counted, columns)
            self.counts[name], self.hashes[name] = counted, digest.hexdigest()


def files_of(source: Source) -> list[Path] | None:
    """The files of a source, None for a hub data set. Raises UserError when there is none."""
    if source.hub is not None:
        return None
    return [file for path in _list(source.path) for file in data_files(Path(path).expanduser())]


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
    for path in files:
        yield from (_parquet if path.suffix == ".parquet" else _jsonl)(path, source)


def _jsonl(path: Path, _: Source) -> Iterator[Raw]:
    for line in json_lines(path):
        yield Raw(f"{path.name}:{line.number}", line.row, "" if line.row is not None else "not readable", line.fault)


def _parquet(path: Path, source: Source) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            asked = [source.problem, source.answer, source.solution, source.id, source.level, list(source.where)]
            heads = {name for names in asked for name in _list(names)} | {
                name.partition(".")[0] for names in asked for name in _list(names)
            }
            columns = [name for name in there if name in heads] or there
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=columns, use_threads=False):
                for row in _batch(batch):
                    number += 1
                    place = f"{path.name}:{number}"
                    yield Raw(place, row) if isinstance(row, dict) else Raw(place, None, "not readable", str(row))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a parquet file: {error}") from None


def _batch(batch: Any) -> Sequence[Any]:
    """The rows of a batch; in the place of one that holds no UTF-8, what is wrong with it."""
    rows: list[Any] = []
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                rows += batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError as error:
                rows.append(f"invalid UTF-8 at byte {error.start}")
    return rows


def _read(raw: Raw, number: int, name: str, index: int, source: Source, *, wants_box: bool) -> Read:
    row = raw.row or {}
    own = _pick(row, source.id)
    id_ = f"{name}/{index if own is MISSING or own is None else _shown(str(own))}"
    level = _pick(row, source.level)
    level_text = str(level)[:50] if isinstance(level, str | int) and not isinstance(level, bool) else None
    found, faults = {}, []
    for part, columns in (("problem", source.problem), ("answer", source.answer), ("solution", source.solution)):
        found[part], fault = _text(_pick(row, columns), part, source.max_characters)
        faults += [fault] if fault else []
    problem = found["problem"].removesuffix(source.strip_suffix)
    answer, solution = found["answer"], found["solution"] or None
    reason, detail = raw.reason, raw.detail
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


def _text(value: Any, part: str, longest: int) -> tuple[str, str]:
    """A cell as text, and what is wrong with it ("kind: detail") or an empty string."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | int | float):
        value = value[0]  # OlympiadBench's final_answer
    if part == "problem" and isinstance(value, list):
        messages = [m.get("content") for m in value if isinstance(m, Mapping) and m.get("role", "user") == "user"]
        value = messages[-1] if messages else value
    if value is MISSING or value is None:
        return "", ""
    if part == "answer" and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            return "", f"wrong type: the {part} is {value}"
        return (str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else str(value)), ""
    if not isinstance(value, str):
        return "", f"wrong type: the {part} is a {type(value).__name__}, not a text"
    if len(value) > longest:
        return value[:SHOWN], f"too long: the {part} has {len(value):,} characters"
    text = value if part == "problem" else value.strip()  # what is asked stays as the source has it
    return text, _odd(text, part)


def _odd(text: str, part: str) -> str:
    """What no text of a problem may hold, in words; empty when there is nothing of it."""
    odd = next((c for c in text if (c < " " and c not in "\n\t\r") or c == "\x7f" or "\ud800" <= c <= "\udfff"), None)
    if odd is None:
        return ""
    if odd == "\0":
        return f"a NUL byte: in the {part}"
    if odd >= "\ud800":
        return f"half a character: a lone surrogate in the {part}"
    return f"a control character: {odd!r} in the {part}; a backslash that JSON took, perhaps"


def _pick(row: Mapping[str, Any], names: str | list[str]) -> Any:
    """The first of the columns that the row has with something in it; dots go into nested ones."""
    found: Any = MISSING
    for name in _list(names):
        value = cell(row, name)
        if value is not MISSING:
            found = value
            if value is not None and value != "":
                return value
    return found


def _wanted(row: Mapping[str, Any], source: Source) -> bool:
    return all(_pick(row, name) == value for name, value in source.where.items())


def _list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _nothing(name: str, source: Source, counted: int, columns: str) -> UserError:
    if counted == 0:
        return UserError(f"the source {name} has no rows", fix=f"look into its path, and at sources.{name}.where")
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

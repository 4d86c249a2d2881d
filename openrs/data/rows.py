"""Rows of a data file or data set, one at a time: JSONL, parquet, the hub. What cannot be read is refused by line."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.hub import cache
from openrs.run.files import json_lines

Row = Mapping[str, Any]
MISSING: Any = object()


def data_files(path: Path) -> list[Path]:
    """The JSONL and parquet files at a path: itself, or those in a folder. Raises UserError when there is none."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in {".jsonl", ".parquet"})
        if not files:
            raise UserError(f"{path} has no .jsonl or .parquet file in it", fix="give a folder with such files in it")
        return files
    if not path.is_file():
        raise UserError(f"there is no file {path}", fix="give a file, a folder, or a hub data set (owner/name)")
    if path.suffix not in {".jsonl", ".parquet"}:
        raise UserError(f"{path} is neither .jsonl nor .parquet", fix="convert it to one of the two")
    return [path]


def jsonl_rows(path: Path) -> Iterator[Row]:
    """Rows of a JSONL file; blank lines are passed over. Raises UserError with the line's number."""
    for line in json_lines(path):
        if line.row is None:
            raise UserError(f"{path}:{line.number}: {line.fault}", fix="one object a line, UTF-8")
        yield line.row


def parquet_rows(path: Path) -> Iterator[Row]:
    """Rows of a parquet file, a thousand in memory at a time. Raises UserError when it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a parquet file: {error}") from None


def hub_rows(repo: str, revision: str | None, subset: str | None, split: str, fix: str) -> Iterator[Row]:
    """Rows of a hub data set: from the folder that `openrs fetch` brought, or from the hub.

    datasets does not find a fetched snapshot by the set's name when offline, but loads its folder. Raises UserError,
    with `fix` for what else can be done, when it cannot be loaded.
    """
    import datasets

    folder = cache.fetched("dataset", repo, revision)
    try:
        if folder is not None:
            rows = datasets.load_dataset(str(folder), name=subset, split=split)
        else:
            rows = datasets.load_dataset(repo, name=subset, split=split, revision=revision)
    except Exception as error:  # noqa: BLE001 - the hub is a named fault boundary: it fails in dozens of ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"data set {repo} at {revision or 'main'} cannot be loaded: {reason}", fix=fix) from None
    yield from rows


def cell(row: Row, name: str) -> Any:
    """The value under a name, or under a dotted one, e.g. `reward_model.ground_truth`; MISSING when there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def column_names(row: Row, prefix: str = "") -> Iterator[str]:
    """All names that `cell` finds something plain under."""
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from column_names(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield from column_names(value[0], f"{prefix}{key}.0.")
        else:
            yield f"{prefix}{key}"

"""Rows of a data file or data set, one at a time: JSONL, JSON arrays, CSV, parquet, `save_to_disk` folders, the hub.

Training, evaluation and curation all read here. A row that cannot be read is named by file and line (row, for parquet
and arrays); a file that cannot be read as a whole is refused. Text is UTF-8, with or without a byte order mark; other
encodings are refused by name, with the command that converts them.
"""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs.config.names import COMPRESSED, DATA_FILES
from openrs.errors import UserError
from openrs.hub import cache
from openrs.run.files import LONGEST_LINE, json_lines_in
from openrs.run.libraries import hand_over
from openrs.run.units import MIB

Row = Mapping[str, Any]
MISSING: Any = object()
HEAD = 2**16  # bytes that are looked at before a file is read
LONGEST_ARRAY = 512 * MIB  # a JSON array is read whole
DEEPEST = 8  # levels of nested columns that a message lists
_OTHER_KINDS = {b"\x1f\x8b": "gzip (name it FILE.gz)", b"(\xb5/\xfd": "zstd (name it FILE.zst)"}
_OTHER_KINDS |= {b"PAR1": "parquet (name it FILE.parquet)", b"ARROW1": "Arrow (name it FILE.arrow)"}


@dataclass(frozen=True, slots=True)
class Raw:
    """One row as it stands in the source, or why it cannot be read. place: file and line, for a person."""

    place: str
    row: Row | None
    fault: str = ""


def data_files(path: Path, split: str = "train") -> list[Path]:
    """The data files at a path: itself, or those in a folder, which may be one that `save_to_disk` wrote (of several
    splits, that one). Raises UserError when there is none."""
    kinds = ", ".join(DATA_FILES)
    if (path / "dataset_dict.json").is_file():
        if not (path / split).is_dir():
            there = ", ".join(sorted(folder.name for folder in path.iterdir() if folder.is_dir()))
            raise UserError(f"{path} has no split {split}", f"its splits: {there}", "name one of them: split")
        path = path / split
    if path.is_dir():
        arrow = (path / "state.json").is_file()
        groups = [(".arrow",)] if arrow else [(".jsonl", ".ndjson", ".parquet"), (".json", ".csv", ".tsv", ".arrow")]
        for group in groups:
            files = sorted(file for file in path.iterdir() if _kind(file) in group and not file.name.startswith("."))
            if files:
                return files
        raise UserError(f"{path} has no data file in it", f"data files end in {kinds}", "give the folder that has them")
    if not path.is_file():
        raise UserError(f"there is no file {path}", fix="give a file, a folder, or a hub data set (owner/name)")
    if _kind(path) not in DATA_FILES:
        raise UserError(
            f"{path} is not a data file by its name",
            f"data files end in {kinds}; text files also in those with {' or '.join(COMPRESSED)} after them",
            "name it after what it is, or convert it",
        )
    return [path]


def _kind(path: Path) -> str:
    """`.jsonl` of a.jsonl and a.jsonl.gz, in lower case."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def file_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Places and rows of a data file. Raises UserError naming the first row that cannot be read."""
    for raw in raw_rows(path):
        if raw.row is None:
            latin = "; if the file is Latin-1: " + _iconv(path, "LATIN1") if "UTF-8" in raw.fault else ""
            raise UserError(
                f"{path.parent / raw.place}: {raw.fault}", fix=f"a JSON object a line, in UTF-8{latin}"
                if _kind(path) not in {".csv", ".tsv", ".parquet"} else f"repair the row, or take it out{latin}",
            )  # fmt: skip
        yield raw.place, raw.row


def raw_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Raw]:
    """Every row of a data file, whatever is in it; of parquet only the columns asked for, where it has some of them.

    Raises UserError for a file that cannot be read at all.
    """
    kind = _kind(path)
    try:
        if kind == ".parquet":
            yield from _parquet(path, columns)
        elif kind == ".arrow":
            yield from _arrow(path)
        else:
            with _opened(path) as file:
                refuse_encoding(path, file.peek(HEAD)[:HEAD])
                yield from _csv(path, file) if kind in {".csv", ".tsv"} else _json(path, file)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - named fault boundary, files from anywhere: their libraries raise anything
        what = f"not a {kind[1:]} file" if kind in {".parquet", ".arrow"} else "cannot be read"
        reason = getattr(error, "strerror", None) or str(error)[:200] or type(error).__name__
        raise UserError(f"{path}: {what}: {reason}") from None


def _opened(path: Path) -> io.BufferedReader:
    if path.suffix.lower() not in COMPRESSED:
        return io.BufferedReader(path.open("rb", buffering=0), HEAD)
    import pyarrow as pa

    kind = "gzip" if path.suffix.lower() == ".gz" else "zstd"
    return io.BufferedReader(pa.input_stream(str(path), compression=kind), HEAD)


# --- encodings --------------------------------------------------------------------------------------------------------


def refuse_encoding(path: Path, head: bytes) -> None:
    """Raises UserError for a file whose first bytes are not those of UTF-8 text with line ends, naming what it is."""
    for mark, name in _OTHER_KINDS.items():
        if head.startswith(mark):
            raise UserError(
                f"{path} is {name.partition(' (')[0]}, not text", fix=f"give it the name of its kind: {name}"
            )
    wide = "UTF-32" if head[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff") else "UTF-16"
    start = head[:1000]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or wide == "UTF-32":
        raise _encoding(path, wide, _iconv(path, wide))
    if start.count(0) > len(start) // 4:
        wide += "LE" if start[1::2].count(0) > start[::2].count(0) else "BE"
        raise _encoding(path, wide, _iconv(path, wide))
    if b"\r" in head.rstrip() and b"\n" not in head:
        raise _encoding(path, "text with CR as its only line end", f"tr '\\r' '\\n' < {path} > {_converted(path)}")


def latin_1(path: Path) -> UserError:
    """The refusal of a file that is not UTF-8, though it has its line ends."""
    return _encoding(path, "not UTF-8, Latin-1 perhaps", _iconv(path, "LATIN1"))


def _encoding(path: Path, name: str, command: str) -> UserError:
    why = "data files are read as UTF-8, with LF or CR LF at the end of a line"
    return UserError(f"{path} is {name}", why, f"convert it: {command}")


def _iconv(path: Path, name: str) -> str:
    unpacked = {".gz": "gunzip -c", ".zst": "zstdcat"}.get(path.suffix.lower())
    source = f"{unpacked} {path} | iconv -f {name} -t UTF-8" if unpacked else f"iconv -f {name} -t UTF-8 {path}"
    return f"{source} > {_converted(path)}"


def _converted(path: Path) -> Path:
    name = Path(path.stem) if path.suffix.lower() in COMPRESSED else Path(path.name)
    return path.with_name(f"{name.stem}.utf8{name.suffix}")


# --- kinds of files ---------------------------------------------------------------------------------------------------


def _json(path: Path, file: io.BufferedReader) -> Iterator[Raw]:
    """JSON lines, or one array of objects."""
    lines: io.BufferedIOBase = file
    if file.peek(HEAD)[:HEAD].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        data = file.read(LONGEST_ARRAY + 1)
        if len(data) > LONGEST_ARRAY:
            whole = f"an array of more than {LONGEST_ARRAY // MIB} MiB is not read"
            raise UserError(f"{path}: {whole}", fix=f"make lines of it: jq -c '.[]' {path} > {path.stem}.jsonl")
        try:
            array = json.loads(data.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise latin_1(path) from None
        except (ValueError, RecursionError):
            array = []
        if any(isinstance(row, dict) for row in array):
            for number, row in enumerate(array, start=1):
                fault = f"a {type(row).__name__}, not an object"
                place = f"{path.name}:{number}"
                yield Raw(place, row) if isinstance(row, dict) else Raw(place, None, fault)
            return
        lines = io.BytesIO(data)  # lines after all, the first of them broken
    for line in json_lines_in(lines):
        yield Raw(f"{path.name}:{line.number}", line.row, line.fault)


def _csv(path: Path, file: io.BufferedReader) -> Iterator[Raw]:
    """A header and rows; every value is the text that stands there. Separated by what the header has most of."""
    csv.field_size_limit(LONGEST_LINE)  # Python's own is 128 KiB, less than a long solution may take
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    first = file.peek(HEAD)[:HEAD].partition(b"\n")[0]
    delimiter = max(",;\t", key=lambda mark: first.count(mark.encode()))
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise UserError(f"{path}: two columns are called {twice[0]!r}", fix="rename one of them in the first line")
        for fields in reader:
            if not fields:
                continue
            place = f"{path.name}:{reader.line_num}"
            if len(fields) == len(header):
                yield Raw(place, dict(zip(header, fields, strict=True)))
            else:
                yield Raw(place, None, f"{len(fields)} fields, the first line names {len(header)}")
    except UnicodeDecodeError:
        raise latin_1(path) from None
    except csv.Error as error:
        raise UserError(
            f"{path}:{reader.line_num}: {error}", fix="close the quotation mark before it, or double it"
        ) from None


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Raw]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        there = file.schema_arrow.names
        heads = {*(columns or ()), *(name.partition(".")[0] for name in columns or ())}
        wanted = [name for name in there if name in heads] or there
        batches = file.iter_batches(batch_size=1024, columns=wanted, use_threads=False)
        yield from _batches(path, batches)


def _arrow(path: Path) -> Iterator[Raw]:
    """As `datasets` writes it: the stream format."""
    import pyarrow as pa

    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
        yield from _batches(path, stream)


def _batches(path: Path, batches: Iterator[Any]) -> Iterator[Raw]:
    numbers = itertools.count(1)
    for batch in batches:
        for row in _batch_rows(batch):
            place = f"{path.name}:{next(numbers)}"
            yield Raw(place, row) if isinstance(row, dict) else Raw(place, None, str(row))


def _batch_rows(batch: Any) -> Sequence[Any]:
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


def hub_rows(repo: str, revision: str | None, subset: str | None, split: str, fix: str) -> Iterator[Row]:
    """Rows of a hub data set: from the folder that `openrs fetch` brought, or from the hub.

    datasets does not find a fetched snapshot by the set's name when offline, but loads its folder. Raises UserError,
    with `fix` for what else can be done, when it cannot be loaded.
    """
    import datasets
    from huggingface_hub import HfApi

    hand_over("huggingface_hub", "datasets")
    folder = cache.fetched("dataset", repo, revision)
    try:
        if folder is not None:
            rows = datasets.load_dataset(str(folder), name=subset, split=split)
        else:
            if not cache.offline():  # one request, without the retries of load_dataset, which take half a minute
                HfApi().dataset_info(repo, revision=revision, timeout=10)
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
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def column_names(row: Row, prefix: str = "", levels: int = DEEPEST) -> Iterator[str]:
    """All names that `cell` finds something plain under."""
    for key, value in row.items():
        if isinstance(value, Mapping) and levels:
            yield from column_names(value, f"{prefix}{key}.", levels - 1)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping) and levels:
            yield from column_names(value[0], f"{prefix}{key}.0.", levels - 1)
        else:
            yield f"{prefix}{key}"

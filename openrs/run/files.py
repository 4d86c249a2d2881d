"""Files that are there whole or not at all: atomic writes, journals, hashes."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

from openrs.errors import UserError
from openrs.outside import open_regular
from openrs.run.confined import open_appending, replacing
from openrs.run.units import MIB
from openrs.secrets import redact


def now() -> str:
    """UTC, to the second, as in 2026-11-21T07:34:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all (see `replacing`)."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "surrogatepass"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=True) + "\n")


class Journal:
    """An append-only JSONL file that survives SIGKILL: a line is there whole or not at all.

    A line torn by a kill has no newline; opening the journal cuts it off, so the next line starts clean.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_appending(path)
        self._cut_torn_line()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line in one write, so that two appends never mix."""
        line = (json.dumps(row, ensure_ascii=True, allow_nan=True) + "\n").encode()
        written = os.write(self._file, line)
        if written != len(line):  # a disk that is full takes a part of the line
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError(errno.ENOSPC, "no space left for a line", str(self.path))

    def sync(self) -> None:
        """Make every line so far survive a power cut; a kill they survive anyway."""
        os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut_torn_line(self) -> None:
        end = os.fstat(self._file).st_size
        position = end
        while position > 0:
            size = min(65536, position)
            newline = os.pread(self._file, size, position - size).rfind(b"\n")
            if newline >= 0:
                position = position - size + newline + 1
                break
            position -= size
        if position != end:
            os.ftruncate(self._file, position)


LONGEST_LINE = 32 * MIB  # of a JSONL file


class JsonLine(NamedTuple):
    """A line of a JSONL file that is not blank: its object, or what is wrong with it. ended: whether a newline follows,
    which the last line of a journal in use may lack."""

    number: int
    row: dict[str, Any] | None
    fault: str
    ended: bool


def json_lines(path: Path) -> Iterator[JsonLine]:
    """Every line of a JSONL file, whatever is in it. Raises OSError when the file cannot be read."""
    with open_regular(path) as file:
        yield from json_lines_in(file)


def json_lines_in(file: IO[bytes] | BufferedIOBase) -> Iterator[JsonLine]:
    """The same of a file that is open."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            while not line.endswith(b"\n") and (line := file.readline(LONGEST_LINE)):
                pass
            yield JsonLine(number, None, f"a line of more than {LONGEST_LINE // MIB} MiB", line.endswith(b"\n"))
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield JsonLine(number, *_json_object(line), line.endswith(b"\n"))


def _json_object(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """The object in a line, or None and what is wrong."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, f"invalid UTF-8 at byte {error.start}: {line[:80].decode('utf-8', 'replace')!a}"
    if "\0" in text:
        return None, f"a NUL byte: {text[:80]!r}"
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"[:200]
    return (row, "") if isinstance(row, dict) else (None, f"a {type(row).__name__}, not an object")


LAST_BYTES = 64 * 1024  # of a log that are searched for its last lines


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The last lines of a log that say something, without secrets; none where there is no log."""
    try:
        with open_regular(log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            text = file.read(LAST_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return redact("\n".join([line for line in text.splitlines() if line.strip()][-count:])).splitlines()


def step_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of metrics.jsonl. Raises UserError as read_jsonl, and for a line without a step."""
    for row in read_jsonl(path):
        if not isinstance(row.get("step"), int) or isinstance(row["step"], bool):
            raise UserError(f"{path} has a line without a step: {str(row)[:80]}", fix="the file was changed by hand")
        yield row


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a journal that may be in use: a torn last line is left out. A missing file has no rows.

    Raises UserError naming the line when any other line is not a JSON object.
    """
    for line in json_lines(path) if path.is_file() else ():
        if not line.ended:
            return
        if line.row is None:
            raise UserError(f"{path}:{line.number}: {line.fault}", fix="the file was changed by hand or damaged")
        yield line.row

"""Files that are there whole or not at all: atomic writes, journals, hashes; and what must not be written: secrets."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from openrs.errors import UserError
from openrs.run.confined import open_appending, replacing

_SECRET = re.compile(
    r"\b(hf_[A-Za-z0-9]{8,}|sk-[A-Za-z0-9_-]{8,}|gh[pousr]_[A-Za-z0-9]{8,})|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"
)


_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET)_?KEY)($|_)", re.IGNORECASE
)


def redact(text: str) -> str:
    """Hide what looks like a token or a password in a URL, and the values of variables that are named like secrets."""
    for name, value in os.environ.items():
        if len(value) >= 8 and value in text and _SECRET_NAME.search(name):
            text = text.replace(value, "[hidden]")
    return _SECRET.sub("[hidden]", text)


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


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a journal that may be in use: a torn last line is left out. A missing file has no rows.

    Raises UserError naming the line when any other line is no JSON object.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{path}:{number} is not JSON: {error}", fix="the file was changed by hand or damaged"
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number} is not a JSON object")
            yield row

"""Reading files that may be half-written, damaged or hostile: what cannot be read is noted, never raised."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from openrs.report.evidence.values import text

LONGEST_LINE = 64 * 2**20  # bytes; the pieces of a longer line of a journal count as damaged


def json_file(path: Path, notes: list[str]) -> Any:
    """The JSON value in a file, or None with a note."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.parent.name}/{path.name} cannot be read and is left out: {text(str(error), 120)}")
        return None


def yaml_file(path: Path, notes: list[str]) -> Any:
    """The YAML value in a file, or None with a note."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        notes.append(f"{path.parent.name}/{path.name} cannot be read and is left out: {text(str(error), 120)}")
        return None


def jsonl_rows(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file, in use or damaged: a line that is no object is left out, and how many is noted."""
    damaged = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if isinstance(row, dict):
                    yield row
                elif line.strip():
                    damaged += 1
    except OSError as error:
        notes.append(f"{path.parent.name}/{path.name} cannot be read: {error.strerror}")
    if damaged:
        notes.append(f"{path.parent.name}/{path.name}: {damaged} damaged or unfinished lines left out")

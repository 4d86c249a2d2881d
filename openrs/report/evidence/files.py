"""Reading files that may be half-written, damaged or hostile: what cannot be read is noted, never raised."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrs.config.yaml_lines import read_yaml
from openrs.errors import UserError
from openrs.outside import read_json
from openrs.report.evidence.values import text
from openrs.run.files import json_lines


def tree_in(path: Path, notes: list[str]) -> Any:
    """The value in a JSON or YAML file; None with a note where it cannot be read, and without one where none is."""
    if not path.is_file():
        return None
    try:
        return read_yaml(path)[0] if path.suffix == ".yaml" else read_json(path)
    except UserError as error:
        notes.append(f"{path.parent.name}/{path.name} is left out: {text(error.what, 160)}")
        return None


def jsonl_rows(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file, in use, damaged or absent: a line that is no object is left out, and how many is noted."""
    damaged = 0
    try:
        for line in json_lines(path) if path.is_file() else ():
            if line.row is not None:
                yield line.row
            else:
                damaged += 1
    except OSError as error:
        notes.append(f"{path.parent.name}/{path.name} cannot be read: {error.strerror}")
    if damaged:
        notes.append(f"{path.parent.name}/{path.name}: {damaged} damaged or unfinished lines left out")

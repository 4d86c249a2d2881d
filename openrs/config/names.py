"""Names that a user gives: layouts, hub repositories, things on this disk. Light enough for `openrs --help`."""

from enum import StrEnum
from pathlib import Path

from openrs.outside import exists

DATA_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSED = (".gz", ".zst")  # after the suffix of a text file


class Layout(StrEnum):
    """Where completions are generated: in the only process, in every training process, or on a GPU of its own."""

    SINGLE = "single"
    COLOCATE = "colocate"
    SPLIT = "split"

    def trainers(self, gpus: int) -> int:
        """Processes that train on `gpus` GPUs; below 1 where the layout needs more GPUs."""
        return {Layout.SINGLE: 1, Layout.COLOCATE: gpus, Layout.SPLIT: gpus - 1}[self]

    def generators(self, trainers: int) -> int:
        """Processes that generate: the one server of the split layout, else every training process."""
        return 1 if self is Layout.SPLIT else trainers


def is_hub_name(name: str) -> bool:
    """Whether `name` names a hub repository (owner/name) rather than something on this disk."""
    path = Path(name)
    named = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    return named and not exists(path) and path.suffix.lower() not in (*DATA_FILES, *COMPRESSED)

"""Names that a user gives: of a hub repository, or of something on this disk."""

from pathlib import Path


def is_hub_name(name: str) -> bool:
    """Whether `name` names a hub repository (owner/name) rather than something on this disk."""
    path = Path(name)
    named = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    return named and not path.exists() and path.suffix not in {".jsonl", ".json", ".parquet"}

"""The cache of fetched models and data: huggingface_hub's own layout, and openrs-lock.json beside it.

The lock holds what the first fetch found: commits that no pin knows, and size and SHA-256 of every file. A snapshot is
good when every file of its entry is there with these bytes.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.hub.pins import Kind, Reference, reference
from openrs.outside import read_shape
from openrs.run.files import now, sha256, write_json

LOCK = "openrs-lock.json"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a snapshot: its size, its SHA-256."""

    bytes: int
    sha256: str


def offline() -> bool:
    """Whether HF_HUB_OFFLINE is set, as the hub's library reads it."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def repository(ref: Reference, cache: Path | None = None) -> Path:
    """Where the cache keeps a repository: models--owner--name or datasets--owner--name."""
    return hub_cache(cache) / f"{ref.kind}s--{ref.repo.replace('/', '--')}"


def snapshot(ref: Reference, cache: Path | None = None) -> Path | None:
    """The folder with the reference's files, or None when it was never fetched. See `problems` for its state."""
    commit = locked_commit(ref, cache)
    folder = repository(ref, cache) / "snapshots" / commit if commit else None
    return folder if folder is not None and folder.is_dir() else None


def fetched(kind: Kind, repo: str, revision: str | None = None, cache: Path | None = None) -> Path | None:
    """The folder of a model or data set that `openrs fetch` brought, at this revision or as pinned; None: not fetched.

    Load from this folder, not by name: `datasets.load_dataset(name)` does not look into the hub's cache when offline,
    and nobody but openrs resolves the beginning of a commit. Sizes are compared, hashes are the doctor's business.
    """
    ref = reference(kind, repo, "", revision, allow_unpinned=True)
    return snapshot(ref, cache) if not problems(ref, cache, hashes=False) else None


def locked_commit(ref: Reference, cache: Path | None = None) -> str | None:
    """The commit of a reference: its own, or the one that the first fetch locked; None before that."""
    if ref.exact:
        return ref.revision
    commit = read_lock(cache)["first"].get(f"{ref.name}@{ref.revision}")
    return str(commit) if commit else None


def read_lock(cache: Path | None = None) -> dict[str, Any]:
    """{"first": {"datasets/owner/name@main": commit}, "files": {"models/owner/name@commit": {"files": {...}}}}."""
    path = hub_cache(cache) / LOCK
    try:
        return read_shape(path, {"first": {"*": str}, "files": {"*": {"files": {"*": {"bytes": int, "sha256": str}}}}})
    except UserError as error:
        if not os.path.lexists(path):
            return {"first": {}, "files": {}}
        why = "it holds the hashes that what was fetched is checked against"
        raise UserError(error.what, why, "delete it and fetch again: sizes and hashes are then recorded anew") from None


def locked_files(ref: Reference, cache: Path | None = None) -> dict[str, File] | None:
    """Files of a reference as the first fetch recorded them, or None before that."""
    entry = read_lock(cache)["files"].get(f"{ref.name}@{locked_commit(ref, cache)}")
    return {name: File(fact["bytes"], fact["sha256"]) for name, fact in entry["files"].items()} if entry else None


def record(ref: Reference, commit: str, files: Mapping[str, File], cache: Path | None = None) -> None:
    """Write a fetched reference into the lock. The caller holds `only_one`."""
    lock = read_lock(cache)
    if not ref.exact:
        lock["first"][f"{ref.name}@{ref.revision}"] = commit
    facts = {name: asdict(file) for name, file in sorted(files.items())}
    lock["files"][f"{ref.name}@{commit}"] = {"fetched": now(), "files": facts}
    write_json(hub_cache(cache) / LOCK, lock)


def problems(ref: Reference, cache: Path | None = None, *, hashes: bool = True) -> list[str]:
    """What is wrong with a reference in the cache, in words; empty when it is complete. hashes=False compares sizes."""
    folder, files = snapshot(ref, cache), locked_files(ref, cache)
    if folder is None:
        return ["not fetched yet"]
    if files is None:
        return ["in the cache, but not by openrs: its files were never checked"]
    found = []
    for name, fact in files.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != fact.bytes:
            found.append(f"{name} has {path.stat().st_size:,} bytes instead of {fact.bytes:,}")
        elif hashes and sha256(path) != fact.sha256:
            found.append(f"{name} differs from its SHA-256")
    return found


@contextmanager
def only_one(cache: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One fetch at a time into a cache; the kernel frees it however the process ends. Waits for the other."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle = os.open(cache / ".openrs-fetch.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"the cache {cache} cannot be written: {error.strerror}",
            fix="set HF_HOME to a folder that can be, or change its owner",
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"another fetch is at work in {cache}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def hub_cache(cache: Path | None = None) -> Path:
    """Where huggingface_hub keeps what was fetched: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub."""
    if cache is not None:
        return cache
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"

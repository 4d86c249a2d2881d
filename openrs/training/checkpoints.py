"""Checkpoints that are complete or absent.

A checkpoint is written beside, every file fsynced, given a manifest of sizes and SHA-256, renamed into place, and its
parent fsynced. A folder whose manifest is missing or does not match does not exist for resume; it is set aside by name.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from openrs.rundir import sha256, sync_folder, write_json

MANIFEST = "checkpoint.json"


def folder_of(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step-{step:06d}"


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def finish(staging: Path, checkpoints: Path, step: int) -> Path:
    """Turn a folder that has been written beside into the complete checkpoint of `step`; returns its place.

    Raises OSError (a full disk) and then leaves every earlier checkpoint as it was.
    """
    files = sorted(path for path in staging.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    listed = {str(path.relative_to(staging)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}
    write_json(staging / MANIFEST, {"step": step, "files": listed})
    place = folder_of(checkpoints, step)
    if place.exists():  # the same step again after a resume from before it
        shutil.rmtree(place)
    staging.rename(place)
    sync_folder(checkpoints)
    return place


def damage(folder: Path, *, hashes: bool = True) -> str | None:
    """What is wrong with a checkpoint, in words, or None when it is complete. `hashes=False` compares sizes only."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = dict(manifest["files"])
    except FileNotFoundError:
        return "it has no manifest: it was never finished"
    except (ValueError, KeyError, TypeError):
        return "its manifest is damaged"
    for name, facts in listed.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != facts["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {facts['bytes']}"
        if hashes and sha256(path) != facts["sha256"]:
            return f"{name} differs from its SHA-256"
    return None


def complete(checkpoints: Path) -> list[Path]:
    """Folders of all checkpoints with a manifest whose sizes match, oldest first."""
    folders = [path for path in checkpoints.glob("step-??????") if path.is_dir()]
    return sorted((path for path in folders if damage(path, hashes=False) is None), key=step_of)


def newest(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is complete to the last byte, and a line for each damaged one that was set aside.

    A damaged folder is renamed to step-NNNNNN.damaged: kept for whoever wants to look, never loaded.
    """
    said: list[str] = []
    for folder in sorted(checkpoints.glob("step-??????"), key=step_of, reverse=True):
        reason = damage(folder)
        if reason is None:
            return folder, said
        aside = folder.with_name(f"{folder.name}.damaged")
        number = 2
        while aside.exists():
            aside, number = folder.with_name(f"{folder.name}.damaged-{number}"), number + 1
        folder.rename(aside)
        said.append(f"{folder.name} is damaged ({reason}): set aside as {aside.name}, not loaded")
    return None, said


def prune(checkpoints: Path, keep_last: int, keep_every: int | None, needed: Iterable[int] = ()) -> list[Path]:
    """Delete old complete checkpoints: not the newest `keep_last`, multiples of `keep_every`, or `needed` steps.

    Returns what was deleted. A checkpoint loses its manifest first, so a kill in between leaves no torn one behind.
    """
    folders = complete(checkpoints)
    kept = {step_of(folder) for folder in folders[-max(keep_last, 1) :]} | set(needed)
    gone = [
        folder
        for folder in folders
        if step_of(folder) not in kept and not (keep_every and step_of(folder) % keep_every == 0)
    ]
    for folder in gone:
        (folder / MANIFEST).unlink()
        shutil.rmtree(folder)
    return gone

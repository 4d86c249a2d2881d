"""Checkpoints that are complete or absent.

A checkpoint is written to a staging folder, every file fsynced, given a manifest of sizes and SHA-256, renamed into
place, and its parent fsynced. A folder whose manifest is missing or does not match does not exist for resume; it is
renamed.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from openrs.config.schema import Recipe
from openrs.errors import RunFailure, UserError
from openrs.outside import read_shape
from openrs.run import retention
from openrs.run.confined import empty_folder, make_folder, sync_folder
from openrs.run.files import sha256, write_json
from openrs.run.folders import DECLARATION, Kind

MANIFEST = DECLARATION[Kind.CHECKPOINT]
SHAPE = {"step": int, "files": {"*": {"bytes": int, "sha256": str}}}
PLACE = "step-" + "[0-9]" * 6
PIECE = 1 << 24  # weights that are looked at at a time
STAGING = ".staging"  # what is being written, or on its way out
# A model as anybody loads it; the rest of a checkpoint (optimizer, RNG, position in the data) only serves to resume.
MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json",
    "tokenizer*", "*.jinja", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


def step_name(step: int) -> str:
    """What a checkpoint's folder is called, and all else that belongs to a step."""
    return f"step-{step:06d}"


def folder_of(checkpoints: Path, step: int) -> Path:
    return checkpoints / step_name(step)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def finish(staging: Path, checkpoints: Path, step: int, alive: Callable[[], None] = lambda: None) -> Path:
    """Turn a folder that has been written into the complete checkpoint of `step`; returns its place.

    alive: called after each file that has been read, on a slow disk minutes apart.

    Raises OSError (a full disk) and RunFailure (weights that are NaN or Inf: `staging` is deleted), and then leaves
    every earlier checkpoint as it was.
    """
    try:
        bad = _nonfinite_in(staging, alive)
    except ValueError as error:
        what = f"step {step}: the weights that were just written cannot be read: {error}"
        raise RunFailure(what, fix="look at the disk, and give the same command again") from None
    if bad:  # such a model is of no use
        shutil.rmtree(staging)
        raise nonfinite_weights(step, f"{sum(bad.values()):,} weights are", next(iter(bad)), list_complete(checkpoints))
    paths = sorted(path for path in staging.rglob("*") if path.name != MANIFEST)
    listed = _facts(staging, [path for path in paths if path.is_file()], alive)
    for folder in [path for path in paths if path.is_dir()]:
        sync_folder(folder)
    write_json(staging / MANIFEST, {"step": step, "finite": True, "files": listed})  # fsyncs `staging` as well
    place = folder_of(checkpoints, step)
    if place.exists():  # never seen: the folder of a step that is done again was renamed at the start
        _quarantine(place, "replaced")
    staging.rename(place)
    sync_folder(checkpoints)
    return place


def nonfinite(path: Path) -> dict[str, int]:
    """Tensors of a safetensors file that hold NaN or Inf: name -> how many elements do. Imports torch.

    Raises ValueError for a file that is not safetensors.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    bad: dict[str, int] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                tensor = file.get_tensor(name)
                for piece in tensor.flatten().split(PIECE) if tensor.is_floating_point() and tensor.numel() else ():
                    numbers = piece.float() if piece.itemsize == 1 else piece  # torch cannot compare eight bits
                    if not torch.isfinite(torch.stack(numbers.aminmax())).all():  # NaN goes through both
                        bad[name] = bad.get(name, 0) + int((~torch.isfinite(numbers)).sum())
    except SafetensorError as error:
        raise ValueError(f"it is not a safetensors file: {error}") from None
    return bad


def _nonfinite_in(folder: Path, alive: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Tensors of a checkpoint with NaN or Inf in them, and in how many places. Raises ValueError for broken files."""
    bad: dict[str, int] = {}
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(nonfinite, sorted(folder.glob("*.safetensors"))):
            bad |= found
            alive()
    return bad


def nonfinite_weights(step: int, what: str, tensor: str, there: list[Path]) -> RunFailure:
    """The error of a run whose weights are NaN or Inf. there: its complete checkpoints, oldest first."""
    kept = f"{there[-1].name} is complete and sound" if there else "no checkpoint was complete before it"
    return RunFailure(
        f"step {step}: {what} NaN or Inf, first in {tensor}",
        f"no checkpoint of them is kept; {kept}",
        "start a new --run with a smaller grpo.learning_rate (--set grpo.learning_rate=...), or model.dtype float32",
    )


def _facts(folder: Path, files: Iterable[Path], alive: Callable[[], None]) -> dict[str, dict[str, Any]]:
    """Name -> size and SHA-256 of each file, after an fsync of it. Hashing releases the GIL: threads share it out."""

    def facts(path: Path) -> tuple[str, dict[str, Any]]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return str(path.relative_to(folder)), {"bytes": path.stat().st_size, "sha256": sha256(path)}

    listed = {}
    with ThreadPoolExecutor(4) as pool:
        for name, known in pool.map(facts, files):
            listed[name] = known
            alive()
    return listed


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint: step, whether its weights were seen to be finite, and files with their sizes and
    SHA-256. Raises ValueError in words."""
    try:
        manifest = read_shape(folder / MANIFEST, SHAPE)
    except UserError:
        there = os.path.lexists(folder / MANIFEST)
        raise ValueError("its manifest is damaged" if there else "it has no manifest: it was never finished") from None
    step, finite = manifest["step"], bool(manifest.get("finite", False))  # older ones do not say
    listed = {name: {"bytes": f["bytes"], "sha256": f["sha256"]} for name, f in manifest["files"].items()}
    if not listed or (fnmatch(folder.name, PLACE) and step != step_of(folder)):
        raise ValueError("its manifest is of another checkpoint")
    return {"step": step, "finite": finite, "files": listed}


def find_corruption(folder: Path, *, hashes: bool = True) -> str | None:
    """What is wrong with a checkpoint, in words, or None when it is complete. `hashes=False` compares sizes only."""
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        return str(error)
    listed = manifest["files"]

    def wrong(name: str) -> str | None:
        path, facts = folder / name, listed[name]
        try:
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {facts['bytes']}"
            if hashes and sha256(path) != facts["sha256"]:
                return f"{name} differs from its SHA-256"
        except OSError as error:  # a sector that cannot be read any more
            return f"{name} cannot be read: {error.strerror}"
        return None

    with ThreadPoolExecutor(4) as pool:
        reason = next((reason for reason in pool.map(wrong, listed) if reason is not None), None)
    if reason is None and hashes and not manifest["finite"]:
        try:
            bad = _nonfinite_in(folder)
        except (ValueError, OSError) as error:
            return f"its weights cannot be read: {error}"
        reason = f"its weights are NaN or Inf, first in {next(iter(bad))}" if bad else None
    return reason


def resumable(folder: Path) -> bool:
    """Whether a complete checkpoint still has all that a resume needs (see training.old_weights_only)."""
    return "trainer_state.json" in read_manifest(folder)["files"]


def list_complete(checkpoints: Path) -> list[Path]:
    """Folders of all checkpoints with a manifest whose sizes match, oldest first."""
    folders = [path for path in checkpoints.glob(PLACE) if path.is_dir()]
    return sorted((path for path in folders if find_corruption(path, hashes=False) is None), key=step_of)


def bytes_of(folder: Path) -> int:
    return sum(facts["bytes"] for facts in read_manifest(folder)["files"].values())


def latest_resumable(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is complete to the last byte, and a line for each folder that is not.

    A damaged folder is renamed to step-NNNNNN.damaged: kept for whoever wants to look, never loaded. What a kill left
    half written or half deleted is removed. The caller holds the run's lock, or is its only process.
    """
    left = empty_folder(checkpoints / STAGING)
    lines = [f"{name} was being written or deleted when the run was killed: removed" for name in left]
    for folder in sorted(checkpoints.glob(PLACE), key=step_of, reverse=True):
        reason = find_corruption(folder)
        if reason is not None:
            place = _quarantine(folder, "damaged")
            lines.append(f"{folder.name} is damaged ({reason}): renamed to {place.name}, not loaded")
        elif not resumable(folder):
            lines.append(f"{folder.name} has only its weights left (training.old_weights_only): not resumable")
        else:
            return folder, lines
    return None, lines


def _quarantine(folder: Path, word: str) -> Path:
    """Rename a folder so that nobody takes it for a checkpoint; nothing in it is touched."""
    place, number = folder.with_name(f"{folder.name}.{word}"), 2
    while os.path.lexists(place):
        place, number = folder.with_name(f"{folder.name}.{word}-{number}"), number + 1
    folder.rename(place)
    sync_folder(folder.parent)
    return place


def prune(checkpoints: Path, recipe: Recipe, scored: Collection[int] = ()) -> list[Path]:
    """Delete the complete checkpoints that retention.kept does not name; returns their folders.

    With training.old_weights_only those that are kept without being among the newest lose what only serves to resume. A
    checkpoint leaves its place by one rename, so a kill in between leaves no torn one behind.
    """
    folders = {step_of(folder): folder for folder in list_complete(checkpoints)}
    kept = retention.kept(recipe, list(folders), scored)
    gone = [folder for step, folder in folders.items() if step not in {*kept.newest, *kept.older}]
    for folder in gone:
        make_folder(checkpoints / STAGING)
        shutil.rmtree(folder.rename(checkpoints / STAGING / f"deleted-{folder.name}"))
    if recipe.training.old_weights_only:
        for step in kept.older:
            _strip_to_weights(folders[step])
    return gone


def _strip_to_weights(folder: Path) -> None:
    """Take away all but the model. The manifest goes first: files that it does not list are nobody's business."""
    manifest = read_manifest(folder)
    listed = {n: facts for n, facts in manifest["files"].items() if any(fnmatch(n, p) for p in MODEL_FILES)}
    if len(listed) < len(manifest["files"]):
        write_json(folder / MANIFEST, manifest | {"files": listed})
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif str(path.relative_to(folder)) not in listed and path.name != MANIFEST:
            path.unlink()

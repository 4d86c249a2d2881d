"""A checkpoint as a plain Hugging Face model folder that any tool loads, with a card that says where it comes from."""

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.hub.adapters import base_of, merge
from openrs.hub.loading import check_weights
from openrs.hub.model_card import card
from openrs.outside import read_object
from openrs.run import checkpoints, manifest
from openrs.run.confined import sync_folder
from openrs.run.directory import Run
from openrs.run.files import sha256, write_json, write_text
from openrs.run.folders import DECLARATION, Kind, declaration, kind_of

ORIGIN = DECLARATION[Kind.EXPORT]  # what an export was made from, so that the same command finds it done


def export(run: Run, step: int | None = None, to: Path | None = None, *, trust_remote_code: bool = False) -> Path:
    """Write the checkpoint of `step` (default: the newest) into the folder `to` (default: RUN/export/step-NNNNNN).

    The folder appears whole or not at all. Returns it. Raises UserError for a step without a complete checkpoint, a
    damaged one, one that lacks weights, and a folder that holds something else.
    """
    recipe = manifest.recipe_of(run)
    assert recipe is not None  # existing_run looked
    source = _checkpoint(run, step)
    folder = to if to is not None else run.path / "export" / source.name
    number = checkpoints.step_of(source)
    made_from = {"recipe_sha256": recipe.hash, "step": number, "weights": _weights(source)}
    origin = made_from | {"dtype": recipe.model.dtype}  # in which it is evaluated, as the checkpoint is
    if folder.exists():
        if made_from.items() <= _origin(folder).items():
            write_json(folder / ORIGIN, origin)
            write_text(folder / "README.md", card(run, recipe, number))  # results may be new
            return folder
        if not folder.is_dir() or any(folder.iterdir()):
            raise UserError(f"{folder} is there and is not an export of this checkpoint", fix="give another --to")
        folder.rmdir()
    reason = checkpoints.find_corruption(source)
    if reason is not None:
        raise UserError(f"{source} is damaged: {reason}", fix="give another --step")
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    if recipe.model.lora is not None:
        beside.parent.mkdir(parents=True, exist_ok=True)
        base = base_of(run, recipe)
        merge(base, source, beside, dtype=recipe.model.dtype, trust_remote_code=trust_remote_code)
    else:
        check_weights(source, trust_remote_code=trust_remote_code)
        beside.mkdir(parents=True)
        _copy(source, beside)
    _make_usable(beside)
    shutil.copyfile(run.recipe, beside / "recipe.yaml")
    write_json(beside / ORIGIN, origin)
    write_text(beside / "README.md", card(run, recipe, number))
    beside.rename(folder)
    sync_folder(folder.parent)
    return folder


def _checkpoint(run: Run, step: int | None) -> Path:
    there = checkpoints.list_complete(run.checkpoints)
    if not there:
        raise UserError(f"{run.path} has no complete checkpoint", fix="train first")
    if step is None:
        return there[-1]
    place = checkpoints.folder_of(run.checkpoints, step)
    if place not in there:
        steps = ", ".join(str(checkpoints.step_of(folder)) for folder in there)
        raise UserError(f"{run.path} has no complete checkpoint of step {step}", fix=f"there are: {steps}")
    return place


def _weights(source: Path) -> dict[str, str]:
    """SHA-256 of the weight files, as the checkpoint's manifest has them."""
    files = checkpoints.read_manifest(source)["files"]
    return {name: facts["sha256"] for name, facts in files.items() if name.endswith(".safetensors")}


def _origin(folder: Path) -> dict[str, Any]:
    """What an export was made from; nothing for any other folder."""
    try:
        return declaration(folder, Kind.EXPORT) if kind_of(folder) is Kind.EXPORT else {}
    except UserError:
        return {}


def _copy(source: Path, folder: Path) -> None:
    """The model's own files, checked once more on the far side."""
    listed = checkpoints.read_manifest(source)["files"]
    for name, facts in listed.items():
        if any(fnmatch(name, pattern) for pattern in checkpoints.MODEL_FILES):
            shutil.copyfile(source / name, folder / name)
            if sha256(folder / name) != facts["sha256"]:
                raise UserError(f"{name} was damaged on the way to {folder}", fix="look at that disk, and try again")


def _make_usable(folder: Path) -> None:
    """Switch the KV cache on: training with gradient checkpointing leaves it off, and the authors' released weights
    have it so, which makes generation about 200 times slower."""
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        settings = read_object(path) if path.is_file() else {}
        write_json(path, settings | {"use_cache": True})

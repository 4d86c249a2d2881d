"""LoRA adapters: recognised, and merged into the model that they were trained on."""

import shutil
from pathlib import Path
from typing import Any

from openrs.config.schema import Recipe
from openrs.hub.loading import load_model, not_loaded, refuse_other_tensors
from openrs.hub.models import local_model
from openrs.outside import read_json
from openrs.run.confined import make_folder, sync_folder
from openrs.run.directory import Run
from openrs.run.files import sha256, write_json
from openrs.run.folders import ADAPTER

ADAPTER_WEIGHTS = "adapter_model.safetensors"
MERGED_FROM = "merged_from.json"  # in a merged model: the SHA-256 of the adapter's files, and the dtype


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file()


def plain(run: Run, recipe: Recipe, checkpoint: Path, trust_remote_code: bool) -> Path:
    """A folder with the whole model of a checkpoint: itself, or base and adapter merged into RUN/merged, once."""
    if not is_adapter(checkpoint):
        return checkpoint
    folder = run.path / "merged" / checkpoint.name
    base = base_of(run, recipe)  # where there is none, nothing is made
    make_folder(folder.parent)
    return merge(base, checkpoint, folder, dtype=recipe.model.dtype, trust_remote_code=trust_remote_code)


def base_of(run: Run, recipe: Recipe) -> Path:
    """The folder of the model that a run began with."""
    return run.path / "base" if recipe.model.toy is not None else local_model(recipe.model.name, recipe.model.revision)


def merge(base: Path, adapter: Path, folder: Path, *, dtype: str, trust_remote_code: bool) -> Path:
    """Write base + adapter as one plain model into `folder`, whole or not at all; returns it. What is there already
    stays only if it was made of this very adapter.

    dtype: the recipe's, which the base was trained with, whatever it is stored in; the weights get it. The sum W +
    alpha / rank * B A is taken in float32. Raises UserError when base or adapter lack a tensor, or have another one.
    """
    import torch
    from transformers import AutoTokenizer

    origin = {name: sha256(adapter / name) for name in (ADAPTER, ADAPTER_WEIGHTS)} | {"dtype": dtype}
    if (folder / MERGED_FROM).is_file() and read_json(folder / MERGED_FROM) == origin:
        return folder
    if folder.exists():
        shutil.rmtree(folder)
    trained = getattr(torch, dtype)
    model = load_model(base, trust_remote_code=trust_remote_code, dtype=trained).float()
    merged = _adapted(model, adapter).merge_and_unload().to(trained)
    beside = folder.with_name(f"{folder.name}.part")
    merged.save_pretrained(beside)
    AutoTokenizer.from_pretrained(adapter, trust_remote_code=trust_remote_code).save_pretrained(beside)
    write_json(beside / MERGED_FROM, origin)
    beside.rename(folder)
    sync_folder(folder.parent)
    return folder


def _adapted(model: Any, adapter: Path) -> Any:
    """The model with the adapter in it, every tensor of it. PEFT itself only warns of those that are missing."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / ADAPTER_WEIGHTS, "pt") as file:
            there = set(file.keys())
        adapted = PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise not_loaded(adapter, error) from None
    asked = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    refuse_other_tensors(adapter, asked - there, there - asked)
    return adapted

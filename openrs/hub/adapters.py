"""LoRA adapters: recognised, and merged into the model that they were trained on."""

from pathlib import Path

from openrs.config.schema import Recipe
from openrs.hub.models import local_model
from openrs.run.directory import Run
from openrs.run.files import sync_folder

ADAPTER = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file()


def plain(run: Run, recipe: Recipe, checkpoint: Path) -> Path:
    """A folder with the whole model of a checkpoint: itself, or base and adapter merged into RUN/merged, once."""
    if not is_adapter(checkpoint):
        return checkpoint
    made = recipe.model.made is not None
    base = run.path / "base" if made else local_model(recipe.model.name, recipe.model.revision)
    folder = run.path / "merged" / checkpoint.name
    folder.parent.mkdir(exist_ok=True)
    return merge(base, checkpoint, folder)


def merge(base: Path, adapter: Path, folder: Path) -> Path:
    """Write base + adapter as one plain model into `folder`, whole or not at all; returns it.

    The weights keep the base's dtype; the sum W + alpha / rank * B A is taken in float32.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if (folder / "config.json").is_file():
        return folder
    dtype = AutoConfig.from_pretrained(base).dtype or torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload().to(dtype)
    beside = folder.with_name(f"{folder.name}.part")
    merged.save_pretrained(beside)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(beside)
    beside.rename(folder)
    sync_folder(folder.parent)
    return folder

"""Low-rank adapters: what PEFT is told, and an adapter merged back into a model that any tool loads.

After Tina (Wang et al. 2025, arXiv 2504.15777): rank 32, alpha 128, dropout 0.05 on the seven linear layers of a block;
their recipe for open-rs is recipes/DeepSeek-R1-Distill-Qwen-1.5B/grpo/model_curated_open_rs2.yaml at 077329b.
"""

from pathlib import Path
from typing import Any

from openrs.data.models import local_model
from openrs.run.confined import make_folder, sync_folder
from openrs.rundir import Run
from openrs.settings import Lora, Recipe

ADAPTER = "adapter_config.json"


def peft_config(lora: Lora) -> Any:
    """PEFT's LoraConfig: all linear layers but the LM head, whose weight TRL reads directly."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file()


def plain(run: Run, recipe: Recipe, checkpoint: Path) -> Path:
    """A folder with the whole model of a checkpoint: itself, or base and adapter merged into RUN/merged, once."""
    if not is_adapter(checkpoint):
        return checkpoint
    made = recipe.model.made is not None
    base = run.path / "base" if made else local_model(recipe.model.name, recipe.model.revision)
    folder = run.path / "merged" / checkpoint.name
    make_folder(folder.parent)
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

"""Low-rank adapters: what PEFT is told, and an adapter merged back into a model that any tool loads.

After Tina (Wang et al. 2025, arXiv 2504.15777): rank 32, alpha 128, dropout 0.05 on the seven linear layers of a block;
their recipe for open-rs is recipes/DeepSeek-R1-Distill-Qwen-1.5B/grpo/model_curated_open_rs2.yaml at 077329b.
"""

from pathlib import Path
from typing import Any

from openrs.config.schema import Lora
from openrs.data.loading import not_loaded, refuse_other_tensors

WEIGHTS = "adapter_model.safetensors"


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


def _adapted(model: Any, adapter: Path) -> Any:
    """The model with the adapter in it, every tensor of it. PEFT itself only warns of those that are missing."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / WEIGHTS, "pt") as file:
            there = set(file.keys())
        adapted = PeftModel.from_pretrained(model, adapter)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise not_loaded(adapter, error) from None
    asked = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    refuse_other_tensors(adapter, asked - there, there - asked)
    return adapted

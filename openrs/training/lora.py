"""Low-rank adapters: what PEFT is configured with, and an adapter merged back into a model that any tool loads.

After Tina (Wang et al. 2025, arXiv 2504.15777): rank 32, alpha 128, dropout 0.05 on the seven linear layers of a block;
their recipe for open-rs is recipes/DeepSeek-R1-Distill-Qwen-1.5B/grpo/model_curated_open_rs2.yaml at 077329b.
"""

from typing import Any

from openrs.config.schema import Lora


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

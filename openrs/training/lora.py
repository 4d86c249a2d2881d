"""Low-rank adapters: what PEFT is configured with, and what vLLM gets of a model with adapters.

After Tina (Wang et al. 2025, arXiv 2504.15777): rank 32, alpha 128, dropout 0.05 on the seven linear layers of a block;
their recipe for open-rs is recipes/DeepSeek-R1-Distill-Qwen-1.5B/grpo/model_curated_open_rs2.yaml at 077329b.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from openrs.config.schema import Lora

if TYPE_CHECKING:
    import torch  # `train --dry-run` imports this module


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


def merged_weights(model: Any) -> Iterator[tuple[str, "torch.Tensor"]]:
    """The weights of base + adapter under the base's own names, one at a time; the model itself is never written.

    W + scaling * B A is summed in float32 and rounded once to W's dtype, as openrs.hub.adapters.merge does for
    evaluation. TRL 1.16 adds the product to W in place and subtracts it after the sync, as PEFT does it: in bfloat16
    that does not give W back, and the base, which is also the reference, drifts (huggingface/trl#6688).
    """
    for name, value in model.named_parameters():
        if model.prefix in name:  # the adapters
            continue
        layer = name.removesuffix(".base_layer.weight")
        weight = value.detach()
        if layer != name:
            weight = _merged(model.get_submodule(layer), weight)
        yield name.removeprefix("base_model.model.").replace(".base_layer", ""), weight


def _merged(layer: Any, weight: "torch.Tensor") -> "torch.Tensor":
    total = weight.float()
    for adapter in layer.active_adapters:
        product = layer.lora_B[adapter].weight.detach().float() @ layer.lora_A[adapter].weight.detach().float()
        total = total + layer.scaling[adapter] * product
    return total.to(weight.dtype)

"""The dtype in which vLLM computes: that of the trainer's own forward pass.

TRL 1.16 gives colocated vLLM no dtype, so vLLM takes the one in the model's config.json, and turns float32 there into
bfloat16. A float32 policy would then be sampled from its bfloat16 rounding, in which most of a small update is lost:
vLLM would stay with the weights of some steps before (docs/training.md, The canary).
"""

from functools import partial

from openrs.config.checks import grpo_value
from openrs.config.names import Layout
from openrs.config.schema import Recipe


def autocast(recipe: Recipe) -> str | None:
    """The dtype that mixed precision computes in; None without mixed precision. TRL reads an unset bf16 as on."""
    if grpo_value(recipe, "fp16"):
        return "float16"
    bf16 = grpo_value(recipe, "bf16")
    return "bfloat16" if bf16 or bf16 is None else None


def vllm_dtype(recipe: Recipe) -> str:
    """vLLM's dtype for a recipe, as its option --dtype names it."""
    return autocast(recipe) or recipe.model.dtype


def set_colocated_dtype(recipe: Recipe) -> None:
    """Make the LLM that TRL is about to construct in this process one of the recipe's dtype."""
    if grpo_value(recipe, "use_vllm") and recipe.hardware.layout is not Layout.SPLIT:
        from trl.generation import vllm_generation

        vllm_generation.LLM = partial(vllm_generation.LLM, dtype=vllm_dtype(recipe))

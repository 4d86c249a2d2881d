"""What vLLM is told beyond TRL's own arguments, in both layouts: the dtype of the trainer's forward pass, and drafts.

TRL 1.16 gives colocated vLLM no dtype, so vLLM takes the one in the model's config.json, and turns float32 there into
bfloat16. A float32 policy would then be sampled from its bfloat16 rounding, in which most of a small update is lost:
vLLM would stay with the weights of some steps before (docs/training.md, The canary).
"""

from functools import partial
from typing import Any

from openrs.config.checks import grpo_value
from openrs.config.names import Layout
from openrs.config.schema import Recipe

NGRAMS = {"prompt_lookup_min": 2, "prompt_lookup_max": 4}  # tokens of the text's end that are looked for earlier in it


def autocast(recipe: Recipe) -> str | None:
    """The dtype that mixed precision computes in; None without mixed precision. TRL reads an unset bf16 as on."""
    if grpo_value(recipe, "fp16"):
        return "float16"
    bf16 = grpo_value(recipe, "bf16")
    return "bfloat16" if bf16 or bf16 is None else None


def vllm_arguments(recipe: Recipe) -> dict[str, Any]:
    """Arguments of vLLM's LLM. Drafts come from the text so far, so vLLM's rejection sampler takes one with the
    probability that the policy gives it, and draws from the rest otherwise: the policy's own distribution."""
    arguments: dict[str, Any] = {"dtype": autocast(recipe) or recipe.model.dtype}
    if recipe.hardware.draft_tokens:
        number = recipe.hardware.draft_tokens
        arguments["speculative_config"] = {"method": "ngram", "num_speculative_tokens": number, **NGRAMS}
    return arguments


def set_colocated_arguments(recipe: Recipe) -> None:
    """Make the LLM that TRL is about to construct in this process one with the recipe's arguments."""
    if grpo_value(recipe, "use_vllm") and recipe.hardware.layout is not Layout.SPLIT:
        from trl.generation import vllm_generation

        vllm_generation.LLM = partial(vllm_generation.LLM, **vllm_arguments(recipe))

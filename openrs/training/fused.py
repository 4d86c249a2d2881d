"""RMSNorm, SwiGLU and rotary embedding as one kernel each (hardware.fused_kernels), by liger-kernel: the same
functions, which round otherwise in bfloat16. Not liger's losses, which would replace TRL's LM head.

Its rotary kernel turns queries and keys in the memory of their projections, and autograd does not see it. Where
selective recomputation (recompute.py) has kept these projections, the backward would turn them a second time: a wrong
gradient without an error. So the rotary embedding stays as it is there.
"""

import sys
from typing import TYPE_CHECKING

from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel
from transformers.trainer_utils import unwrap_peft_model

from openrs.config.schema import Recipe
from openrs.run import manifest
from openrs.run.directory import Run
from openrs.run.processes import rank
from openrs.run.progress import Progress

if TYPE_CHECKING:
    from openrs.training.trainer import Trainer


def use_fused_kernels(trainer: "Trainer", recipe: Recipe, run: Run, progress: Progress) -> None:
    """Give policy and reference the same kernels, and record which: none for a model type that liger does not know."""
    policy, *others = [
        unwrap_peft_model(trainer.accelerator.unwrap_model(model))
        for model in (trainer.model, trainer.ref_model)
        if model is not None
    ]
    for model in (policy, *others):
        fuse(model, rotary=recipe.hardware.recompute == "all")
    fused = {name for module in policy.modules() if (name := module._get_name()).startswith("Liger")}
    rotary = getattr(sys.modules[type(policy).__module__], "apply_rotary_pos_emb", None)
    if rotary is not None and rotary.__module__.startswith("liger_kernel"):
        fused.add(rotary.__name__)
    names = sorted(fused)
    progress.say(f"fused kernels: {', '.join(names) or f'liger-kernel has none for {policy.config.model_type}'}")
    if rank() == 0:
        manifest.record(run, fused_kernels=names)


def fuse(model: PreTrainedModel, *, rotary: bool) -> None:
    """Patch the model's modules; the rotary embedding for all models of its kind in this process.

    Kernels are only switched off: liger raises NotImplementedError when it is asked for one that a kind of model lacks
    (rope of Qwen3.5 and GLM-4).
    """
    off = {"cross_entropy", "fused_linear_cross_entropy"}
    if not rotary:
        off.add("rope")
    if getattr(model.config, "hidden_act", None) not in ("silu", "swish"):  # liger does not look; Gemma 2 has none
        off.add("swiglu")
    apply_liger_kernel(model, dict.fromkeys(off, False))

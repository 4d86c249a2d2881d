"""A recipe on given GPUs, as the few numbers that memory, time and money follow from."""

import math
from dataclasses import dataclass, replace

from openrs.config.checks import grpo_value
from openrs.config.names import Layout
from openrs.config.schema import Recipe
from openrs.errors import UserError
from openrs.planner.gpus import Gpu
from openrs.planner.shapes import BYTES, Shape, shape_of

JUDGES = 4  # judging processes assumed where the recipe leaves it to the machine
ALONE, BESIDE = 0.9, 0.3  # vLLM's share of a GPU of its own (the split layout), and beside a trainer (TRL's default)
FLASH = ("sdpa", "flash", "kernels-community")  # causal kernels: openrs.training.logprobs gives them no mask tensor


@dataclass(frozen=True, slots=True)
class Workload:
    """What a training run asks of its GPUs. Tokens are counted per sequence, `micro` per device, calls per step.

    recipe: for what other GPUs or a --fit leave as it is. element: bytes of a weight. trained: weights that get a
    gradient. calls: generation calls per optimizer step. packed: rows follow each other without padding.
    fused_head: TRL 1.16's LM head that never holds all logits; False is the authors' trainer (TRL at 69ad852).
    """

    recipe: Recipe
    shape: Shape
    gpu: Gpu
    gpus: int
    layout: Layout
    trainers: int
    micro: int
    accumulation: int
    calls: int
    prompt_cap: int
    completion_cap: int
    element: int
    trained: int
    zero: int
    checkpointing: bool
    reference: bool
    vllm: bool
    utilisation: float
    sleep: bool
    window: int
    flash: bool
    judges: int
    packed: bool
    recompute: int | str
    fused_head: bool = True

    @property
    def completions(self) -> int:
        """Completions in one optimizer step, over all processes."""
        return self.micro * self.accumulation * self.trainers

    @property
    def generators(self) -> int:
        return self.layout.generators(self.trainers)

    @property
    def batch(self) -> int:
        """Completions that one process generates at once."""
        return math.ceil(self.completions / self.calls / self.generators)

    @property
    def longest(self) -> int:
        return self.prompt_cap + self.completion_cap

    @property
    def full(self) -> bool:
        """Whether all weights are trained (no adapters)."""
        return self.trained == self.shape.parameters


def workload_of(recipe: Recipe, gpu: Gpu, gpus: int | None = None, layout: Layout | None = None) -> Workload:
    """The workload on `gpus` x `gpu` in `layout`; where these differ from the recipe, accumulation changes so that the
    completions of a step and the micro-batch (so the bnpo denominators, so the gradient) stay.

    Raises UserError when the completions of a step cannot be shared out so.
    """
    shape = shape_of(recipe.model)
    micro = int(grpo_value(recipe, "per_device_train_batch_size"))
    accumulation = int(grpo_value(recipe, "gradient_accumulation_steps"))
    per_generation = int(grpo_value(recipe, "steps_per_generation") or accumulation)
    completions = micro * accumulation * recipe.hardware.world_size
    if gpus is None:  # a recipe for a CPU planned on a GPU takes one of them
        gpus = recipe.hardware.gpus or (0 if gpu.measured_only else 1)
    layout = layout or recipe.hardware.layout
    trainers = recipe.hardware.world_size
    if (gpus, layout) != (recipe.hardware.gpus, recipe.hardware.layout):
        trainers = layout.trainers(gpus)
        if trainers < 1 or completions % (micro * trainers):
            pieces = completions // micro
            whole = ", ".join(str(n) for n in range(1, pieces + 1) if pieces % n == 0)
            raise UserError(
                f"{completions} completions a step cannot be shared by {trainers} trainers in micro-batches of {micro}",
                "the gradient would no longer be the recipe's",
                f"take {whole} GPUs{', and one more that generates' if layout is Layout.SPLIT else ''}",
            )
        calls = max(1, accumulation // per_generation)
        accumulation = completions // (micro * trainers)
        per_generation = max(1, accumulation // calls)
    share, sleep = grpo_value(recipe, "vllm_gpu_memory_utilization"), grpo_value(recipe, "vllm_enable_sleep_mode")
    if layout is Layout.SPLIT:  # as openrs.training.vllm_server starts the server
        share, sleep = max(share, ALONE), False
    elif recipe.hardware.layout is Layout.SPLIT:
        share = min(share, BESIDE)
    window = grpo_value(recipe, "vllm_max_model_length")
    prompt_cap, completion_cap = recipe.prompt.max_tokens, int(grpo_value(recipe, "max_completion_length"))
    return Workload(
        recipe=recipe,
        shape=shape,
        gpu=gpu,
        gpus=gpus,
        layout=layout,
        trainers=trainers,
        micro=micro,
        accumulation=accumulation,
        calls=max(1, accumulation // per_generation),
        prompt_cap=prompt_cap,
        completion_cap=completion_cap,
        element=BYTES[recipe.model.dtype],
        trained=shape.lora_parameters(recipe.model.lora.rank) if recipe.model.lora else shape.parameters,
        zero=recipe.hardware.zero_stage,
        checkpointing=bool(grpo_value(recipe, "gradient_checkpointing")),
        # a LoRA run has no second model: its reference is the same weights without the adapters
        reference=grpo_value(recipe, "beta") != 0 and recipe.model.lora is None,
        vllm=bool(grpo_value(recipe, "use_vllm")),
        utilisation=float(share),
        sleep=bool(sleep),
        window=int(window or recipe.model.context or prompt_cap + completion_cap),
        flash=any(word in recipe.model.attn_implementation for word in FLASH),
        judges=recipe.rewards.workers or JUDGES,
        packed=recipe.model.attn_implementation == "sdpa",
        recompute=recipe.hardware.recompute,
    )


def as_the_authors_ran(workload: Workload) -> Workload:
    """The same recipe through the authors' trainer: a generation call per micro-step, and all logits held."""
    utilisation = 0.7 if workload.layout is Layout.SPLIT else workload.utilisation  # their recipe's
    return replace(
        workload, calls=workload.accumulation, fused_head=False, flash=False, packed=False, utilisation=utilisation
    )

"""`openrs plan --fit`: settings under which a recipe fits, with the same completions a step and the same gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from openrs.config.names import Layout
from openrs.planner.memory import engine, fits, profiled_tokens
from openrs.planner.workload import ALONE, Workload
from openrs.run.units import GIB

# Losses that do not divide by the tokens of a micro-batch: a smaller one gives the same gradient.
MICRO_FREE = ("grpo", "dr_grpo", "dapo")


@dataclass(frozen=True, slots=True)
class Change:
    """One setting to change, as for `--set`, and what it does."""

    setting: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Fit:
    """changes: the fewest; workload: with them; found: whether it fits then. notes: what was not proposed, and why."""

    changes: list[Change]
    workload: Workload
    found: bool
    notes: list[str]


Step = Callable[[Workload], tuple[Workload, list[Change]] | None]


def fit(workload: Workload) -> Fit:
    """Change settings until the workload fits, from the cheapest to the dearest, then take back what was not needed."""
    if workload.gpu.memory is None:
        return Fit([], workload, found=False, notes=[f"nothing is known of {workload.gpu.name}'s memory"])
    taken: list[Step] = []
    for step in (_window, _checkpointing, _sleep, _zero, _utilisation, _micro, _split):
        if fits(_applied(workload, taken)[0]):
            break
        taken.append(step)
    for step in [
        step for step in (_split, _micro, _sleep, _checkpointing, _zero, _utilisation, _window) if step in taken
    ]:
        fewer = [other for other in taken if other is not step]
        if fits(_applied(workload, fewer)[0]):
            taken = fewer
    changed, changes = _applied(workload, taken)
    found = bool(fits(changed))
    notes = []
    if not found and workload.loss_type not in MICRO_FREE and workload.micro > 1:
        notes.append(
            f"a smaller micro-batch is not proposed: grpo.loss_type {workload.loss_type} divides by the tokens of a"
            " micro-batch, so the gradient would be another one"
        )
    return Fit(changes if found else [], changed, found, notes)


def _applied(workload: Workload, steps: list[Step]) -> tuple[Workload, list[Change]]:
    changes: dict[str, Change] = {}
    for step in steps:
        done = step(workload)
        if done is not None:
            workload, new = done
            changes |= {change.setting: change for change in new}
    return workload, list(changes.values())


def _window(workload: Workload) -> tuple[Workload, list[Change]] | None:
    longest = workload.prompt_cap + workload.completion_cap
    if not workload.vllm or workload.window <= longest:
        return None
    why = "vLLM needs room in its cache for one sequence of this length; none is longer than prompt and completion"
    return replace(workload, window=longest), [Change("grpo.vllm_max_model_length", str(longest), why)]


def _utilisation(workload: Workload) -> tuple[Workload, list[Change]] | None:
    """The smallest share of the GPU, in steps of 0.05, whose cache holds the generation batch, or a sequence."""
    if not workload.vllm or workload.gpu.memory is None:
        return None
    tokens = profiled_tokens(workload, workload.gpu.memory)
    rest = -engine(workload.shape, 0.0, 0.0, tokens, workload.element).kv  # of vLLM's share, what is not cache
    token = workload.shape.kv_bytes(workload.element)
    batch = math.ceil(workload.completions / workload.calls / workload.generators) * (
        workload.prompt_cap + workload.completion_cap
    )
    for wanted, why in ((batch, "its whole batch"), (workload.window, "one sequence; it generates in waves")):
        share = math.ceil(20 * (rest + max(wanted, workload.window) * token) / (workload.gpu.memory * GIB)) / 20
        other = replace(workload, utilisation=share)
        if share <= 0.95 and share != workload.utilisation and fits(other):
            return other, [Change("grpo.vllm_gpu_memory_utilization", f"{share:g}", f"vLLM's cache then holds {why}")]
    return None


def _checkpointing(workload: Workload) -> tuple[Workload, list[Change]] | None:
    if workload.checkpointing:
        return None
    why = "keeps only each layer's input and computes the rest again: about a quarter more time in the update"
    return replace(workload, checkpointing=True), [Change("grpo.gradient_checkpointing", "true", why)]


def _sleep(workload: Workload) -> tuple[Workload, list[Change]] | None:
    if not workload.vllm or workload.layout is Layout.SPLIT or workload.sleep:
        return None
    why = "vLLM gives its weights and cache back while the weights are updated: a few seconds a step"
    return replace(workload, sleep=True), [Change("grpo.vllm_enable_sleep_mode", "true", why)]


def _zero(workload: Workload) -> tuple[Workload, list[Change]] | None:
    if workload.zero == 2 or workload.trainers < 2:
        return None
    why = "shares gradients and AdamW's state among the processes (and keeps them in fp32)"
    return replace(workload, zero=2), [Change("hardware.zero_stage", "2", why)]


def _micro(workload: Workload) -> tuple[Workload, list[Change]] | None:
    """Half the micro-batch, and twice the accumulation, as often as needed; only where the loss allows it."""
    if workload.loss_type not in MICRO_FREE:
        return None
    smaller = workload
    while smaller.micro % 2 == 0 and not fits(smaller):
        smaller = replace(smaller, micro=smaller.micro // 2, accumulation=smaller.accumulation * 2)
    if smaller == workload:
        return None
    why = f"the same {workload.completions} completions in smaller pieces; this loss does not see their size"
    return smaller, [
        Change("grpo.per_device_train_batch_size", str(smaller.micro), why),
        Change("grpo.gradient_accumulation_steps", str(smaller.accumulation), "keeps the completions of a step"),
    ]


def _split(workload: Workload) -> tuple[Workload, list[Change]] | None:
    """vLLM on a GPU of its own, the others train."""
    trainers = Layout.SPLIT.trainers(workload.gpus)
    if (
        not workload.vllm
        or workload.layout is not Layout.COLOCATE
        or trainers < 1
        or workload.completions % (workload.micro * trainers)
    ):
        return None
    accumulation = workload.completions // (workload.micro * trainers)
    other = replace(
        workload, layout=Layout.SPLIT, trainers=trainers, accumulation=accumulation, sleep=False, utilisation=ALONE
    )
    return other, [
        Change("hardware.layout", Layout.SPLIT, "vLLM gets a GPU of its own"),
        Change("grpo.gradient_accumulation_steps", str(accumulation), "keeps the completions of a step"),
    ]

"""`openrs plan --fit`: settings under which a recipe fits, with the same completions a step and the same gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from openrs.planner.memory import COLOCATED_TOKENS, GIB, SERVER_TOKENS, engine, fits
from openrs.planner.workload import ALONE, Workload

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
    """changes: the fewest found; job: with them; found: whether it fits then. notes: what was not proposed, and why."""

    changes: list[Change]
    job: Workload
    found: bool
    notes: list[str]


Step = Callable[[Workload], tuple[Workload, list[Change]] | None]


def fit(job: Workload) -> Fit:
    """Change settings until the job fits, from the cheapest to the dearest, then take back what was not needed."""
    if job.gpu.memory is None:
        return Fit([], job, found=False, notes=[f"nothing is known of {job.gpu.name}'s memory"])
    taken: list[Step] = []
    for step in (_window, _checkpointing, _sleep, _zero, _utilisation, _micro, _split):
        if fits(_applied(job, taken)[0]):
            break
        taken.append(step)
    for step in [
        step for step in (_split, _micro, _sleep, _checkpointing, _zero, _utilisation, _window) if step in taken
    ]:
        fewer = [other for other in taken if other is not step]
        if fits(_applied(job, fewer)[0]):
            taken = fewer
    changed, changes = _applied(job, taken)
    found = bool(fits(changed))
    notes = []
    if not found and job.loss_type not in MICRO_FREE and job.micro > 1:
        notes.append(
            f"a smaller micro-batch is not proposed: grpo.loss_type {job.loss_type} divides by the tokens of a"
            " micro-batch, so the gradient would be another one"
        )
    return Fit(changes if found else [], changed, found, notes)


def _applied(job: Workload, steps: list[Step]) -> tuple[Workload, list[Change]]:
    changes: dict[str, Change] = {}
    for step in steps:
        done = step(job)
        if done is not None:
            job, new = done
            changes |= {change.setting: change for change in new}
    return job, list(changes.values())


def _window(job: Workload) -> tuple[Workload, list[Change]] | None:
    longest = job.prompt_cap + job.completion_cap
    if not job.vllm or job.window <= longest:
        return None
    why = "vLLM wants room in its cache for one sequence of this length; none is longer than prompt and completion"
    return replace(job, window=longest), [Change("grpo.vllm_max_model_length", str(longest), why)]


def _utilisation(job: Workload) -> tuple[Workload, list[Change]] | None:
    """The smallest share of the GPU, in steps of 0.05, whose cache holds the generation batch, or a sequence."""
    if not job.vllm or job.gpu.memory is None:
        return None
    tokens = SERVER_TOKENS if job.layout == "split" else COLOCATED_TOKENS
    rest = -engine(job.shape, 0.0, 0.0, tokens, job.element).kv  # of vLLM's share, what is not cache
    token = job.shape.kv_bytes(job.element)
    batch = math.ceil(job.completions / job.calls / job.generators) * (job.prompt_cap + job.completion_cap)
    for wanted, why in ((batch, "its whole batch"), (job.window, "one sequence; it generates in waves")):
        share = math.ceil(20 * (rest + max(wanted, job.window) * token) / (job.gpu.memory * GIB)) / 20
        other = replace(job, utilisation=share)
        if share <= 0.95 and share != job.utilisation and fits(other):
            return other, [Change("grpo.vllm_gpu_memory_utilization", f"{share:g}", f"vLLM's cache then holds {why}")]
    return None


def _checkpointing(job: Workload) -> tuple[Workload, list[Change]] | None:
    if job.checkpointing:
        return None
    why = "keeps only each layer's input and computes the rest again: about a quarter more time in the update"
    return replace(job, checkpointing=True), [Change("grpo.gradient_checkpointing", "true", why)]


def _sleep(job: Workload) -> tuple[Workload, list[Change]] | None:
    if not job.vllm or job.layout == "split" or job.sleep:
        return None
    why = "vLLM gives its weights and cache back while the weights are updated: a few seconds a step"
    return replace(job, sleep=True), [Change("grpo.vllm_enable_sleep_mode", "true", why)]


def _zero(job: Workload) -> tuple[Workload, list[Change]] | None:
    if job.zero == 2 or job.trainers < 2:
        return None
    why = "shares gradients and AdamW's state among the processes (and keeps them in fp32)"
    return replace(job, zero=2), [Change("hardware.zero_stage", "2", why)]


def _micro(job: Workload) -> tuple[Workload, list[Change]] | None:
    """Half the micro-batch, and twice the accumulation, as often as needed; only where the loss allows it."""
    if job.loss_type not in MICRO_FREE:
        return None
    smaller = job
    while smaller.micro % 2 == 0 and not fits(smaller):
        smaller = replace(smaller, micro=smaller.micro // 2, accumulation=smaller.accumulation * 2)
    if smaller == job:
        return None
    why = f"the same {job.completions} completions in smaller pieces; this loss does not see their size"
    return smaller, [
        Change("grpo.per_device_train_batch_size", str(smaller.micro), why),
        Change("grpo.gradient_accumulation_steps", str(smaller.accumulation), "keeps the completions of a step"),
    ]


def _split(job: Workload) -> tuple[Workload, list[Change]] | None:
    """vLLM on a GPU of its own, the others train."""
    trainers = job.gpus - 1
    if not job.vllm or job.layout != "colocate" or trainers < 1 or job.completions % (job.micro * trainers):
        return None
    accumulation = job.completions // (job.micro * trainers)
    other = replace(job, layout="split", trainers=trainers, accumulation=accumulation, sleep=False, utilisation=ALONE)
    return other, [
        Change("hardware.layout", "split", "vLLM gets a GPU of its own"),
        Change("grpo.gradient_accumulation_steps", str(accumulation), "keeps the completions of a step"),
    ]

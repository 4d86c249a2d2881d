"""`openrs plan --fit`: settings under which a recipe fits, with the same completions a step and the same gradient."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

from openrs.config.checks import grpo_value
from openrs.config.names import Layout
from openrs.planner.memory import engine, engine_of, fits, profiled_tokens
from openrs.planner.workload import ALONE, Workload
from openrs.run.units import GIB

# Losses that do not divide by the tokens of a micro-batch: a smaller one gives the same gradient.
MICRO_FREE = ("grpo", "dr_grpo", "dapo")


class Change(NamedTuple):
    """One setting to change, as for `--set`, and what it does."""

    setting: str
    value: str
    why: str


class Fit(NamedTuple):
    """changes: the fewest; workload: with them; found: whether it fits then. notes: what was not proposed, and why."""

    changes: list[Change]
    workload: Workload
    found: bool
    notes: list[str]


# Field of a workload -> the setting that changes it, and why one would.
SETTINGS = {
    "window": (
        "grpo.vllm_max_model_length",
        "vLLM needs room in its cache for one sequence of this length; none is longer than prompt and completion",
    ),
    "checkpointing": (
        "grpo.gradient_checkpointing",
        "keeps only each layer's input and computes the rest again: about a quarter more time in the update",
    ),
    "sleep": (
        "grpo.vllm_enable_sleep_mode",
        "vLLM gives its weights and cache back while the weights are updated: a few seconds a step",
    ),
    "zero": (
        "hardware.zero_stage",
        "shares gradients and AdamW's state among the processes (and keeps them in fp32)",
    ),
    "utilisation": ("grpo.vllm_gpu_memory_utilization", "vLLM's cache then holds {held}"),
    "micro": (
        "grpo.per_device_train_batch_size",
        "the same {completions} completions in smaller pieces; this loss does not see their size",
    ),
    "layout": ("hardware.layout", "vLLM gets a GPU of its own"),
    "accumulation": ("grpo.gradient_accumulation_steps", "keeps the completions of a step"),
}
IMPLIED = ("sleep", "utilisation")  # by the split layout

Step = Callable[[Workload], Workload]  # returns what it was given where it has nothing to change


def fit(workload: Workload) -> Fit:
    """Change settings until the workload fits, from the cheapest to the dearest, then take back what was not needed."""
    if workload.gpu.memory is None:
        return Fit([], workload, found=False, notes=[f"nothing is known of {workload.gpu.name}'s memory"])
    taken: list[Step] = []
    for step in (_window, _checkpointing, _sleep, _zero, _utilisation, _micro, _split):
        if fits(_applied(workload, taken)):
            break
        taken.append(step)
    for step in (_split, _micro, _sleep, _checkpointing, _zero, _utilisation, _window):
        fewer = [other for other in taken if other is not step]
        if fits(_applied(workload, fewer)):
            taken = fewer
    changed = _applied(workload, taken)
    found, loss = bool(fits(changed)), grpo_value(workload.recipe, "loss_type")
    notes = []
    if not found and loss not in MICRO_FREE and workload.micro > 1:
        notes.append(
            f"a smaller micro-batch is not proposed: grpo.loss_type {loss} divides by the tokens of a"
            " micro-batch, so the gradient would be another one"
        )
    return Fit(_changes(workload, changed) if found else [], changed, found, notes)


def _applied(workload: Workload, steps: Sequence[Step]) -> Workload:
    return reduce(lambda changed, step: step(changed), steps, workload)


def _changes(before: Workload, after: Workload) -> list[Change]:
    there = engine_of(after)
    waves = there is not None and there.kv < after.batch * after.longest * after.shape.kv_bytes(after.element)
    held = "one sequence; it generates in waves" if waves else "its whole batch"
    return [
        Change(setting, str(value).lower(), why.format(held=held, completions=after.completions))
        for field, (setting, why) in SETTINGS.items()
        if (value := getattr(after, field)) != getattr(before, field)
        and not (field in IMPLIED and after.layout is not before.layout)
    ]


def _window(workload: Workload) -> Workload:
    return replace(workload, window=min(workload.window, workload.longest)) if workload.vllm else workload


def _utilisation(workload: Workload) -> Workload:
    """The smallest share of the GPU, in steps of 0.05, whose cache holds the generation batch, or a sequence."""
    if not workload.vllm or workload.gpu.memory is None:
        return workload
    tokens = profiled_tokens(workload, workload.gpu.memory)
    rest = -engine(workload.shape, 0.0, 0.0, tokens, workload.element).kv  # of vLLM's share, what is not cache
    token = workload.shape.kv_bytes(workload.element)
    for wanted in (workload.batch * workload.longest, workload.window):
        share = math.ceil(20 * (rest + max(wanted, workload.window) * token) / (workload.gpu.memory * GIB)) / 20
        other = replace(workload, utilisation=share)
        if share <= 0.95 and fits(other):
            return other
    return workload


def _checkpointing(workload: Workload) -> Workload:
    return replace(workload, checkpointing=True)


def _sleep(workload: Workload) -> Workload:
    return replace(workload, sleep=True) if workload.vllm and workload.layout is not Layout.SPLIT else workload


def _zero(workload: Workload) -> Workload:
    return replace(workload, zero=2) if workload.trainers > 1 else workload


def _micro(workload: Workload) -> Workload:
    """Half the micro-batch, and twice the accumulation, as often as needed; only where the loss allows it."""
    if grpo_value(workload.recipe, "loss_type") in MICRO_FREE:
        while workload.micro % 2 == 0 and not fits(workload):
            workload = replace(workload, micro=workload.micro // 2, accumulation=workload.accumulation * 2)
    return workload


def _split(workload: Workload) -> Workload:
    """vLLM on a GPU of its own, the others train."""
    trainers = Layout.SPLIT.trainers(workload.gpus)
    if not workload.vllm or workload.layout is not Layout.COLOCATE or trainers < 1:
        return workload
    accumulation, rest = divmod(workload.completions, workload.micro * trainers)
    if rest:
        return workload
    return replace(
        workload, layout=Layout.SPLIT, trainers=trainers, accumulation=accumulation, sleep=False, utilisation=ALONE
    )

"""`openrs plan`: what a recipe takes on given GPUs: memory, seconds, hours, dollars, disk. Never imports torch."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from openrs.config.names import Layout
from openrs.config.schema import Recipe
from openrs.errors import UserError
from openrs.planner import gpus as known_gpus
from openrs.planner.fit import fit
from openrs.planner.memory import (
    Disk,
    Part,
    disk,
    engine_of,
    fits,
    generator_parts,
    host_bytes,
    largest,
    peak,
    trainer_parts,
)
from openrs.planner.times import ASSUMED, Assumptions, favourable, step_seconds, tokens_of, useful_flops
from openrs.planner.workload import Workload, as_the_authors_ran, workload_of
from openrs.run.units import GIB


@dataclass(frozen=True, slots=True)
class ResourcePlan:
    """Bytes, seconds, hours and US dollars; None where the GPU's figures, or its price, are unknown.

    seconds, hours: with the assumptions as they are, which are cautious; hours_least: with the favourable ends of those
    that nobody has measured (openrs.planner.times.FAVOURABLE). fits: on the GPUs. largest: (micro-batch at the recipe's
    length, completion tokens at the recipe's micro-batch).
    """

    title: str
    workload: Workload
    assumed: Assumptions
    trainer: list[Part]
    generator: list[Part]
    fits: bool | None
    largest: tuple[int, int] | None
    seconds: dict[str, float] | None
    flops: float
    hours: float | None
    hours_least: float | None
    price: float | None
    disk: Disk
    host: float
    notes: list[str]

    @property
    def step(self) -> float | None:
        return sum(self.seconds.values()) if self.seconds is not None else None

    @property
    def dollars(self) -> float | None:
        return self._cost(self.hours)

    @property
    def dollars_least(self) -> float | None:
        return self._cost(self.hours_least)

    def _cost(self, hours: float | None) -> float | None:
        return None if hours is None or self.price is None else hours * self.workload.gpus * self.price

    def to_dict(self) -> dict[str, Any]:
        """For --json: the same figures with their units in the names."""
        room = None if self.workload.gpu.memory is None else self.workload.gpu.memory * GIB
        return {
            "recipe": self.title,
            "gpu": self.workload.gpu.name,
            "gpus": self.workload.gpus,
            "layout": self.workload.layout,
            "parameters": self.workload.shape.parameters,
            "kv_bytes_per_token": self.workload.shape.kv_bytes(self.workload.element),
            "completions_per_step": self.workload.completions,
            "generation_calls_per_step": self.workload.calls,
            "memory_bytes": {part.name: round(part.bytes) for part in self.trainer},
            "memory_bytes_peak": round(peak(self.trainer)),
            "memory_bytes_generator": {part.name: round(part.bytes) for part in self.generator},
            "memory_bytes_gpu": None if room is None else round(room),
            "fits": self.fits,
            "largest_micro_batch": self.largest[0] if self.largest else None,
            "longest_completion_tokens": self.largest[1] if self.largest else None,
            "step_seconds": self.seconds,
            "step_flops": self.flops,
            "steps": self.workload.recipe.last_step,
            "hours": self.hours,
            "price_per_gpu_hour_usd": self.price,
            "usd": self.dollars,
            "hours_least": self.hours_least,
            "usd_least": self.dollars_least,
            "checkpoint_bytes": round(self.disk.checkpoint),
            "run_bytes": round(self.disk.run),
            "cache_bytes": round(self.disk.cache),
            "host_bytes": round(self.host),
            "notes": self.notes,
        }


def plan(
    recipe: Recipe,
    *,
    gpu: str | None = None,
    gpus: int | None = None,
    layout: Layout | None = None,
    price: float | None = None,
    node_memory: float | None = None,
    assumed: Assumptions = ASSUMED,
    measured: bool = False,
) -> ResourcePlan:
    """What the recipe takes; arguments that are None come from the recipe.

    node_memory: GiB of RAM in the node, to compare with. measured: the assumptions are a run's own (`--from`), so that
    times are given for a CPU too. Raises UserError for GPUs that cannot share out the step as the recipe has it.
    """
    chosen = known_gpus.find(gpu if gpu is not None else recipe.hardware.gpu)
    if price is None:
        price = recipe.hardware.price_per_gpu_hour if gpu is None else chosen.price
        price = chosen.price if price is None else price
    if price is not None and not 0 <= price < float("inf"):
        raise UserError(f"a price of {price:g} dollars makes no sense", fix="e.g. --price 0.44")
    return plan_workload(
        recipe.title, workload_of(recipe, chosen, gpus, layout), price, node_memory, assumed, measured=measured
    )


def plan_workload(
    title: str,
    workload: Workload,
    price: float | None,
    node_memory: float | None = None,
    assumed: Assumptions = ASSUMED,
    *,
    measured: bool = False,
) -> ResourcePlan:
    timed = measured or not workload.gpu.measured_only
    seconds = step_seconds(workload, assumed) if timed else None
    least = step_seconds(workload, favourable(assumed)) if timed else None
    return ResourcePlan(
        title=title,
        workload=workload,
        assumed=assumed,
        trainer=trainer_parts(workload),
        generator=generator_parts(workload),
        fits=fits(workload),
        largest=largest(workload) if workload.gpu.memory is not None else None,
        seconds=seconds,
        flops=useful_flops(workload, assumed),
        hours=_hours(workload, seconds, assumed),
        hours_least=_hours(workload, least, assumed),
        price=price,
        disk=disk(workload),
        host=host_bytes(workload),
        notes=_notes(workload, price, node_memory, assumed),
    )


def _hours(workload: Workload, seconds: dict[str, float] | None, assumed: Assumptions) -> float | None:
    return (workload.recipe.last_step * sum(seconds.values()) + assumed.startup) / 3600 if seconds is not None else None


def _notes(workload: Workload, price: float | None, node_memory: float | None, assumed: Assumptions) -> list[str]:
    notes = []
    if workload.gpu.measured_only:
        notes.append("no GPU: how fast this CPU is only a run on it can say (--from RUN)")
    elif workload.gpu.memory is None:
        names = ", ".join(known_gpus.known())
        notes.append(f"{workload.gpu.name} is not in the table, so nothing is said of fit and time; known are {names}")
    elif price is None:
        notes.append(f"no price is known for {workload.gpu.name}: give --price")
    engine = engine_of(workload)
    needed = workload.batch * round(sum(tokens_of(workload, assumed)))
    if engine is not None and engine.kv_tokens < workload.window:
        notes.append(
            f"vLLM would not start: its cache holds {engine.kv_tokens:,} tokens, one sequence may have"
            f" {workload.window:,}; raise grpo.vllm_gpu_memory_utilization or lower grpo.vllm_max_model_length"
        )
    elif engine is not None and engine.kv_tokens < needed:
        notes.append(
            f"vLLM's cache holds {engine.kv_tokens:,} tokens, the batch needs about {needed:,}:"
            " it generates in waves, which costs time"
        )
    need = host_bytes(workload)
    if node_memory is not None and node_memory * GIB < need:
        notes.append(
            f"the node's RAM of {node_memory:g} GiB is less than the {need / GIB:.0f} GiB that"
            f" {workload.trainers} processes and {workload.judges} judges may use"
        )
    return notes


# Compared in `openrs plan`: from the paper's to what is rented today.
COMPARED = ("A40", "A6000", "L40S", "A100-40", "A100-80", "H100", "H200", "RTX-4090", "RTX-5090")


def other_gpus(recipe: Recipe, mine: ResourcePlan) -> list[ResourcePlan]:
    """The same recipe on as many GPUs of other kinds, each with its listed price; its own kind first, as planned."""
    rows = [mine]
    for name in COMPARED:
        chosen = known_gpus.known()[name]
        if chosen != mine.workload.gpu:
            workload = workload_of(recipe, chosen, mine.workload.gpus, mine.workload.layout)
            rows.append(plan_workload(name, workload, chosen.price, None, mine.assumed))
    return rows


def other_layouts(recipe: Recipe, mine: ResourcePlan) -> list[tuple[str, ResourcePlan]]:
    """The same kind of GPU in other numbers and layouts that keep the step's completions and micro-batches.

    Last the authors' own way: one GPU generates, in as many calls as there are micro-steps, while the others wait.
    """
    workload = mine.workload
    layouts = [(Layout.COLOCATE, workload.gpus), (Layout.SPLIT, workload.gpus)]
    layouts += [(Layout.COLOCATE, n) for n in (1, 2, 3, 4, 6, 8, 12) if n != workload.gpus]
    others: dict[str, Workload] = {}
    for layout, gpus in layouts:
        if layout.trainers(gpus) >= 1:
            with contextlib.suppress(UserError):  # these cannot share out the step without changing its gradient
                calls = f" ({layout.trainers(gpus)} train, 1 generates)" if layout is Layout.SPLIT else ""
                others[f"{layout} on {gpus}{calls}"] = workload_of(recipe, workload.gpu, gpus, layout)
    if workload.gpus > 1:
        with contextlib.suppress(UserError):
            split = workload_of(recipe, workload.gpu, workload.gpus, Layout.SPLIT)
            others[f"split on {workload.gpus}, as the authors ran it"] = as_the_authors_ran(split)
    return [(name, plan_workload(mine.title, other, mine.price, None, mine.assumed)) for name, other in others.items()]


def enough(recipe: Recipe, workload: Workload) -> int | None:
    """The smallest number of such GPUs, above its own, on which it fits with settings that keep the gradient."""
    for gpus in range(workload.gpus + 1, 17):
        try:
            if fit(workload_of(recipe, workload.gpu, gpus, workload.layout)).found:
                return gpus
        except UserError:
            continue
    return None


def parse_assumptions(given: Sequence[str], base: Assumptions = ASSUMED) -> Assumptions:
    """`--assume NAME=NUMBER`, again for more, laid over `base`. Raises UserError for a name or number there is not."""
    values: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        if name not in Assumptions.__slots__:
            raise UserError(f"--assume {text}: there is no assumption {name}", fix=", ".join(Assumptions.__slots__))
        try:
            values[name] = float(number)
        except ValueError:
            raise UserError(f"--assume {text}: {number!r} is not a number", fix="e.g. --assume link=0.4") from None
        if not 0 < values[name] < float("inf"):
            raise UserError(f"--assume {text}: must be above 0")
    return replace(base, **values)

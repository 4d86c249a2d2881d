"""The jobs of a study, each with what it costs by the planner. Never imports torch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from openrs.config import load as recipes
from openrs.config.names import is_hub_name
from openrs.config.schema import Evaluation, Model, Recipe
from openrs.errors import UserError
from openrs.evaluation.benchmarks import resolve
from openrs.evaluation.protocols import samples_of
from openrs.hub import pins
from openrs.outside import is_file
from openrs.planner import gpus as known_gpus
from openrs.planner.gpus import Gpu
from openrs.planner.plan import plan
from openrs.planner.shapes import Shape, shape_of
from openrs.planner.times import ASSUMED, LEAST, MOST, Draws, evaluation_seconds
from openrs.run.retention import evaluated, saved
from openrs.study.settings import Evaluate, Study, Train, looking, place_of_run


@dataclass(frozen=True, slots=True)
class Range:
    """A planned figure: what is expected, and how far the truth may lie below and above."""

    expected: float
    low: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.expected + other.expected, self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Range":
        return Range(factor * self.expected, factor * self.low, factor * self.high)


NOTHING = Range(0.0, 0.0, 0.0)


def total(parts: Iterable[Range | None]) -> Range | None:
    """The sum; None when a part is not known."""
    found = list(parts)
    return None if None in found else sum((part for part in found if part is not None), start=NOTHING)


@dataclass(frozen=True, slots=True)
class Machine:
    """What the jobs run on. price: dollars per GPU-hour, None where nobody knows it."""

    gpu: Gpu
    gpus: int
    price: float | None

    @property
    def rate(self) -> float | None:
        """Dollars an hour; None where no price is known."""
        return None if self.price is None else self.gpus * self.price

    def dollars(self, hours: Range | None) -> Range | None:
        return None if hours is None or self.rate is None else hours.times(self.rate)


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to run: an evaluation of one model on one benchmark, or a training with one seed to one step.

    entry: its name in the study file. samples: per problem, of an evaluation. after: the job whose run it continues.
    hours: of wall clock on the machine, what `after` has done left out; None where the planner cannot tell.
    """

    id: str
    entry: str
    samples: int | None
    seed: int | None
    after: str | None
    hours: Range | None
    fits: bool | None = None

    @property
    def training(self) -> bool:
        return self.seed is not None


def machine_of(study: Study, gpu: str | None, gpus: int | None, price: float | None) -> Machine:
    """Raises UserError for a number of GPUs or a price that makes no sense."""
    chosen = known_gpus.find(gpu if gpu is not None else study.gpu)
    count = study.gpus if gpus is None else gpus
    if count < 0 or (count < 1 and not chosen.measured_only):
        raise UserError(f"--gpus {count}: a plan needs at least one", fix="e.g. --gpus 4")
    if price is None:
        price = study.price if gpu is None and study.price is not None else chosen.price
    if price is not None and not 0 <= price < float("inf"):
        raise UserError(f"a price of {price:g} dollars makes no sense", fix="e.g. --price 0.44")
    return Machine(chosen, count, price)


def known_jobs(study: Study, state: Mapping[str, Any]) -> tuple[Machine, list[Job]]:
    """The machine of a study's last launch, by what study.json holds, and every job of the study on it."""
    known = state["machine"]
    machine = machine_of(study, known["gpu"], known["gpus"], known.get("price"))
    return machine, jobs_of(study, machine, Path(state["file"]).parent)


def jobs_of(study: Study, machine: Machine, folder: Path) -> list[Job]:
    """Every job of the study, in the order of its file. folder: of that file; recipes of your own lie in it.

    Raises UserError for a model whose sizes nobody knows and for a recipe that cannot be loaded or shared out.
    """
    found = []
    for name, one in study.evaluations.items():
        for benchmark, samples in one.samples.items():
            took = evaluation_hours(study, name, benchmark, machine)
            fits = None if took is None else isfinite(took.expected)
            found.append(Job(f"{name}/{benchmark}", name, samples, None, None, took if fits else None, fits))
    for name, train in study.trainings.items():
        hours, fits = training_hours(study, name, machine, folder)
        for seed in train.seeds:
            after = f"{train.after}/seed{seed}" if train.after is not None else None
            found.append(Job(f"{name}/seed{seed}", name, None, seed, after, hours, fits))
    return found


# --- evaluations ------------------------------------------------------------------------------------------------------


def evaluation_hours(study: Study, name: str, benchmark: str, machine: Machine) -> Range | None:
    """Of all samples. The model is loaded anew for every look at a claim that needs them."""
    one = study.evaluations[name]
    loads = max((len(study.claims[claim].looks) for claim in looking(study, f"{name}/{benchmark}")), default=1)
    settings = study.evaluation
    draws = [
        (part.rows * one.samples[benchmark], one.tokens.get(benchmark, part.tokens)) for part in resolve([benchmark])
    ]
    seconds = _seconds(shape_of_target(one), machine, settings, draws, one.window)
    return None if seconds is None else _range(seconds + (loads - 1) * ASSUMED.startup)


def _seconds(
    shape: Shape, machine: Machine, settings: Evaluation, draws: Sequence[tuple[int, float]], window: int | None = None
) -> float | None:
    """Of one model's completions. draws: how many, and their usual mean length: a model with a small window cannot
    think as long as others."""
    cap = min(settings.max_tokens, settings.max_model_len or settings.max_tokens, window or settings.max_tokens)
    capped = [Draws(count, min(usual, ASSUMED.length * cap)) for count, usual in draws]
    return evaluation_seconds(shape, machine.gpu, machine.gpus, capped, cap=cap)


def shape_of_target(one: Evaluate) -> Shape:
    references = pins.target(one.model)
    name = one.sizes or (references[0].repo if references else one.model)
    return shape_of(Model(name=name))


def _range(seconds: float) -> Range:
    return Range(seconds / 3600, LEAST * seconds / 3600, MOST * seconds / 3600)


# --- trainings --------------------------------------------------------------------------------------------------------


def recipe_of(train: Train, seed: int, folder: Path, *, elsewhere: bool = False) -> Recipe:
    """The recipe of a training's job, up to its step. Raises UserError where it has no such step."""
    recipe = _loaded(recipe_name(train, folder), (*train.overrides, f"grpo.seed={seed}"), elsewhere=elsewhere)
    if train.until == "whole":
        return recipe
    step = recipe.paper.released_step if train.until == "released" else train.until
    if step is None:
        raise UserError(f"{train.recipe} has no paper.released_step", fix="give the step: until: 100")
    if not 1 <= step <= recipe.last_step:
        raise UserError(f"{train.recipe} has {recipe.last_step} steps, and until is {step}", fix="give a smaller step")
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"stop_after": step})})


@cache
def _loaded(name: str, changes: tuple[str, ...], *, elsewhere: bool) -> Recipe:
    return recipes.load(name, changes, elsewhere=elsewhere)


def recipe_name(train: Train, folder: Path) -> str:
    """A recipe file beside the study, else the name as it stands."""
    beside = folder / train.recipe
    return str(beside) if beside.suffix in {".yaml", ".yml"} and is_file(beside) else train.recipe


def training_hours(study: Study, name: str, machine: Machine, folder: Path) -> tuple[Range | None, bool | None]:
    """Hours of one seed beyond what its `after` has done, and whether it fits on the GPUs."""
    train = study.trainings[name]
    recipe = recipe_of(train, train.seeds[0], folder, elsewhere=not machine.gpu.measured_only)
    there = plan(recipe, gpu=machine.gpu.name, gpus=machine.gpus, price=machine.price)
    if there.hours is None or there.hours_least is None:
        return None, there.fits
    steps, before, models = recipe.last_step, 0, [0, *evaluated(recipe, saved(recipe))]
    if train.after is not None:
        earlier = recipe_of(study.trainings[train.after], train.seeds[0], folder, elsewhere=True)
        before = earlier.last_step
        if before >= steps:
            raise UserError(
                f"{name} continues {train.after} to step {steps}, which ends at step {before}",
                fix="give a later `until`",
            )
        models = [step for step in models if step not in (0, *evaluated(earlier, saved(earlier)))]
    startup = ASSUMED.startup / 3600
    trained = startup + (there.hours - startup) * (steps - before) / steps
    judged = _evaluations(recipe, machine, len(models))
    if judged is None:
        return None, there.fits
    if not isfinite(judged.expected):
        return None, False
    return Range(trained, trained * there.hours_least / there.hours, trained) + judged, there.fits


def _evaluations(recipe: Recipe, machine: Machine, models: int) -> Range | None:
    """Hours of evaluating so many models of a run by its recipe."""
    settings = recipe.evaluation
    if not settings.benchmarks or not models:
        return NOTHING
    draws = [(one.rows * samples_of(settings, one), one.tokens) for one in resolve(settings.benchmarks)]
    seconds = _seconds(shape_of(recipe.model), machine, settings, draws)
    return None if seconds is None else _range(models * seconds)


def references_of(study: Study, folder: Path) -> list[pins.Reference]:
    """Every hub repository that the study's jobs need: models, training data, benchmarks."""
    found = [ref for one in study.evaluations.values() for ref in pins.target(one.model) or _of_hub(one.model)]
    if study.evaluation.data is None:
        names = dict.fromkeys(name for one in study.evaluations.values() for name in one.samples)
        found += [
            pins.reference("dataset", one.hub, f"benchmark {one.name}", one.revision)
            for one in resolve(list(names))
            if one.hub
        ]
    for train in study.trainings.values():
        found += pins.references(recipe_of(train, train.seeds[0], folder, elsewhere=True))
    return found


def _of_hub(model: str) -> list[pins.Reference]:
    return [pins.reference("model", model, model, allow_unpinned=True)] if is_hub_name(model) else []


# --- what a claim needs -----------------------------------------------------------------------------------------------


def expanded(need: str, jobs: Sequence[Job]) -> Iterator[Job]:
    """The jobs that an entry of a claim's needs stands for, with those whose runs they continue, these first."""
    by_id = {job.id: job for job in jobs}
    for job in jobs:
        if need in (job.id, job.entry):
            chain = [job]
            while chain[0].after is not None:
                chain.insert(0, by_id[chain[0].after])
            yield from chain


# --- parts ------------------------------------------------------------------------------------------------------------


def independent(study: Study, jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in parts that need nothing of each other, each in the order given.

    In one part are: trainings in one run; evaluations of one model, whose samples are one journal; and those of models
    that a claim with looks compares, for the next look waits for both.
    """
    parts: list[tuple[set[str], list[int]]] = []
    for number, job in enumerate(jobs):
        if job.training:
            ties = {place_of_run(study, job.entry, job.seed or 0)}
        else:
            ties = {f"model {study.evaluations[job.entry].model}"}
            ties |= {f"claim {name}" for name in looking(study, job.id)}
        joined = [part for part in parts if part[0] & ties]
        parts = [part for part in parts if part not in joined]
        parts.append((ties.union(*(names for names, _ in joined)), [number, *(i for _, own in joined for i in own)]))
    return [[jobs[i] for i in own] for own in sorted(sorted(own) for _, own in parts)]


def jobs_of_part(parts: list[list[Job]], part: tuple[int, int]) -> list[Job]:
    """Raises UserError where whoever counted the parts had another plan."""
    number, count = part
    if count != len(parts) or number >= count:
        raise UserError(
            f"--part {number}/{count}: this study has {len(parts)} parts, 0/{len(parts)} and so on",
            "it was planned by another openrs, or with other options",
            "submit it again with the openrs of the image",
        )
    return parts[number]

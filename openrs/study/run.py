"""Runs a study: job after job on this machine, each in an ordinary run directory, resumable at every moment.

The order is the plan's. Evaluations of claims that are looked at more than once grow in whole rounds, and end when a
verdict is in. What is done stands in study.json (state.py). Parts of a study that need nothing of each other may run
side by side, each in its own process, on a file system that all of them see (kubernetes.py).
"""

import math
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs.errors import Interrupted, UserError
from openrs.run import signals
from openrs.run.confined import make_folder
from openrs.run.directory import Lock, Run
from openrs.run.progress import Progress
from openrs.study import looks, state
from openrs.study.jobs import Job, Machine, independent, jobs_of_part, recipe_name, recipe_of
from openrs.study.plan import make_plan
from openrs.study.power import powers_of
from openrs.study.render import dollars
from openrs.study.report import write_study_report
from openrs.study.settings import Study, first_looks, looking, place_of_run
from openrs.study.state import EVALUATIONS, State
from openrs.study.watch import done_of, spent_on

LEAST_SECONDS = 60.0  # what is left for less than this is spent: a launch would only load a model


@dataclass(frozen=True, slots=True)
class Limits:
    """What is planned within, and where it ends: dollars of the whole study, hours of this launch. at_once: parts that
    run side by side and spend what is left together."""

    budget: float | None = None
    hours: float | None = None
    until_usd: float | None = None
    until_hours: float | None = None
    at_once: int = 1


def run_study(
    study: Study,
    file: Path,
    folder: Path,
    *,
    machine: Machine,
    limits: Limits,
    also: Sequence[str] = (),
    accept_changes: bool = False,
    command: str = "openrs reproduce paper",
    part: tuple[int, int] | None = None,
) -> Path:
    """Run what is missing; returns the report's page.

    part: its number, from 0, of how many `independent` makes: only its jobs. Raises Interrupted at a limit or a signal,
    with what to type next; UserError for a study that was changed after its first look, and whatever a job raises.
    """
    make_folder(folder)
    own = folder if part is None else folder / "parts" / str(part[0])
    with (
        Lock(Run(folder), shared=part is not None),
        nullcontext() if part is None else Lock(Run(own)),
        signals.install_handlers(),
    ):
        where = {"gpu": machine.gpu.name, "gpus": machine.gpus, "price": machine.price}
        with state.alone(folder):
            kept = state.opened(folder, study, file, where, accept_changes=accept_changes)
        runner = Runner(study, file, kept, machine, limits, Progress(own / "log"), command, also, accept_changes)
        runner.run(part)
        with state.alone(folder):
            page = write_study_report(folder)
        runner.progress.say(f"report: {page}")
        return page


def planned(study: Study, file: Path, machine: Machine, limits: Limits, also: Sequence[str]) -> list[Job]:
    """The jobs of the whole study's plan in order, whatever is done: the same ones are chosen in every launch.

    also: entries that run although no claim needs them. Raises UserError where the study has no such entry.
    """
    unknown = [name for name in also if name not in study.evaluations and name not in study.trainings]
    if unknown:
        there = ", ".join([*study.evaluations, *study.trainings])
        raise UserError(f"--also {unknown[0]}: there is no such entry", fix=f"there are {there}")
    powers = powers_of(study, file.parent)
    plan = make_plan(study, machine, file.parent, powers, budget=limits.budget, hours=limits.hours)
    more = [job for row in [*plan.beyond, *plan.others] for job in row.jobs if job.entry in also]
    return [job for row in plan.rows for job in row.jobs] + more


@dataclass(frozen=True)
class Runner:
    """Goes through the jobs. Every decision is made anew from study.json, so that a restart takes the same way.

    command: what resumes this launch. also: as of `planned`.
    """

    study: Study
    file: Path
    state: State
    machine: Machine
    limits: Limits
    progress: Progress
    command: str
    also: Sequence[str]
    accept_changes: bool

    def run(self, part: tuple[int, int] | None = None) -> None:
        jobs = planned(self.study, self.file, self.machine, self.limits, self.also)
        if part is not None:
            jobs = jobs_of_part(independent(self.study, jobs), part)
        with self.state.alone():
            self.state.settle([job.id for job in jobs] if part else list(self.state.tree["jobs"]))
        with self.limited():
            self.look(jobs)
            while (job := self.next(jobs)) is not None:
                self.status(jobs, job)
                self.do(job, {one.id for one in jobs})
                self.progress.say(f"{job.id}: {spent_on(self.state, self.machine, job)}")
                self.look(jobs)

    # --- which job next -----------------------------------------------------------------------------------------------

    def next(self, jobs: Sequence[Job]) -> Job | None:
        """The first job that is behind: a training that is not done, an evaluation with fewer samples than are due."""
        ids, done = {job.id for job in jobs}, self.state.done()
        for job in jobs:
            behind = job.id not in done if job.training else self.state.samples(job.id) < self.due(job, ids)
            if behind:
                return job
        return None

    def due(self, job: Job, ids: Collection[str]) -> int:
        """Samples a problem that an evaluation needs now: of the next look at an open claim, else all of them.

        ids: the jobs of this launch. A claim that needs others is not waited for: what is judged once has its samples
        from the first look on.
        """
        names = looking(self.study, job.id)
        if not names:
            return job.samples or 1
        ready = [name for name in names if set(self.study.claims[name].needs[0]) <= set(ids)]
        due = [look for name in ready if (look := looks.next_look(self.study, self.state, name)) is not None]
        return min(due, default=first_looks(self.study)[job.id])

    # --- one job ------------------------------------------------------------------------------------------------------

    def do(self, job: Job, ids: Collection[str]) -> None:
        place = self.place(job)
        written = self.written(job, place)
        with self.state.alone():
            folder = str(written.relative_to(self.state.folder))
            self.state.begin(job.id, folder=folder, rate=self.machine.rate)
        facts: dict[str, Any] = {"done": False}
        try:
            if job.training:
                self.train(job, place)
                facts = {"done": True}
            else:
                samples = self.due(job, ids)
                self.evaluate(job, place, samples)
                facts = {"done": samples == job.samples, "samples": samples}
        finally:
            with self.state.alone():
                self.state.end(job.id, **facts)

    def place(self, job: Job) -> Path:
        """The run directory of a job: one for all evaluations, one a training and seed, which later stages continue."""
        if not job.training:
            return self.state.folder / EVALUATIONS
        return self.state.folder / place_of_run(self.study, job.entry, job.seed or 0)

    def written(self, job: Job, place: Path) -> Path:
        """Where this job's files grow: beside it other parts may evaluate other models."""
        if job.training:
            return place
        from openrs.evaluation.targets import resolved

        targets = resolved(self.study.evaluations[job.entry].model, None, None, trust_remote_code=False)[2]
        return Run(place).evaluation(targets[0].label) if len(targets) == 1 else place

    def evaluate(self, job: Job, place: Path, samples: int) -> None:
        from openrs.evaluation.targets import evaluate_model

        one = self.study.evaluations[job.entry]
        options = self.study.evaluation.model_dump(exclude={"samples_small", "checkpoints"})
        options |= {"benchmarks": [job.id.partition("/")[2]], "samples": samples}
        evaluate_model(
            one.model,
            None,
            options,
            revision=None,
            dtype=None,
            keep_in=f"{place}/",
            shard=None,
            trust_remote_code=False,
        )

    def train(self, job: Job, place: Path) -> None:
        from openrs.run.attempt import attempt
        from openrs.training import launch

        train = self.study.trainings[job.entry]
        recipe = recipe_of(train, int(job.seed or 0), self.file.parent)
        launch.check_machine(recipe, recipe_name(train, self.file.parent))
        with attempt(recipe, Run(place), accept_changes=self.accept_changes) as progress:
            from openrs.reproduce import reproduce  # imports torch, so only once the run is locked

            reproduce(recipe, Run(place), progress)

    # --- looks --------------------------------------------------------------------------------------------------------

    def look(self, jobs: Sequence[Job]) -> None:
        """Look at every claim whose next look has its samples; a job that no open claim needs is done."""
        with self.state.alone():
            for name, claim in self.study.claims.items():
                while claim.looks and looks.ready(self.study, self.state, name):
                    found = looks.evaluations(self.state.folder / EVALUATIONS)
                    self.progress.say(looks.look_at(self.study, self.state, name, found))
            for job in jobs:
                names = looking(self.study, job.id)
                known = job.id in self.state.tree["jobs"] and not self.state.job(job.id)["done"]
                if names and known and all(looks.closed(self.study, self.state, name) for name in names):
                    self.state.change(job.id, done=True)

    # --- limits and what is said --------------------------------------------------------------------------------------

    @contextmanager
    def limited(self) -> Iterator[None]:
        """The block ends as by SIGTERM when a limit is reached: training with a checkpoint, sampling at once."""
        ends = []
        if self.limits.until_hours is not None:
            ends.append((3600 * self.limits.until_hours, f"{self.limits.until_hours:g} hours are over"))
        if self.limits.until_usd is not None:
            rate = (self.machine.rate or 0.0) / 3600 * self.limits.at_once
            if not rate:
                raise UserError(
                    "--until-usd: no price is known", fix="give --price, dollars per GPU-hour, or --until-hours"
                )
            left = self.limits.until_usd - (self.state.dollars() or 0.0)
            if left < LEAST_SECONDS * rate:
                raise UserError(
                    f"${self.state.dollars() or 0.0:,.2f} are spent, and --until-usd is {self.limits.until_usd:g}",
                    fix=self.resume(more=True),
                )
            ends.append((left / rate, f"${self.limits.until_usd:g} are spent"))
        seconds, limit = min(ends, default=(threading.TIMEOUT_MAX, ""))
        reached: list[str] = []

        def end() -> None:
            reached.append(limit)
            os.kill(os.getpid(), signal.SIGTERM)

        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), end)
        timer.daemon = True
        try:
            if ends:
                timer.start()
            yield
        except Interrupted as interrupted:
            reason = reached[0] if reached else str(interrupted).partition(";")[0]
            resume = self.resume(more=reason.startswith("$"))
            raise Interrupted(f"{reason}; everything is saved, and this resumes it: {resume}") from None
        finally:
            timer.cancel()

    def resume(self, *, more: bool) -> str:
        """What to type next, with the limits of this launch. more: with as many dollars again beyond what is spent."""
        limits, command = self.limits, self.command
        if limits.until_usd is not None:
            spent = math.ceil(self.state.dollars() or 0.0) if more else 0
            command += f" --until-usd {spent + limits.until_usd:g}"
        return command + (f" --until-hours {limits.until_hours:g}" if limits.until_hours is not None else "")

    def status(self, jobs: Sequence[Job], job: Job) -> None:
        """Where this launch is, in one line, before a job's own lines."""
        cost = self.machine.dollars(job.hours)
        planned = f", planned {dollars(cost)}" if cost is not None else ""
        so_far = done_of(self.state, [one.id for one in jobs])
        self.progress.say(f"--- {time.strftime('%H:%M')} {so_far}; now {job.id}{planned}")

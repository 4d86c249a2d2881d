"""`openrs watch` of a study: where it is, from its files alone. Never imports torch."""

import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from openrs.run.files import last_lines
from openrs.run.terminal import redraw, say
from openrs.run.units import format_duration
from openrs.run.watch import fitted
from openrs.study import state
from openrs.study.jobs import Job, Machine, known_jobs
from openrs.study.looks import planned_looks, rounds_of
from openrs.study.render import dollars
from openrs.study.state import State


def done_of(kept: State, names: Collection[str]) -> str:
    """How many of these jobs are done, and what all of the study has taken so far."""
    cost = kept.dollars()
    money = "" if cost is None else f", ${cost:,.2f} spent"
    done = len(kept.done() & set(names))
    return f"{done} of {len(names)} jobs done, {format_duration(kept.seconds())}{money}"


def spent_on(kept: State, machine: Machine, job: Job) -> str:
    """What a job took so far, beside the plan's range."""
    took, cost, planned = kept.seconds(job.id), kept.dollars(job.id), machine.dollars(job.hours)
    hours = "" if job.hours is None else f", planned {job.hours.low:.1f} to {job.hours.high:.1f} h"
    money = f"; ${cost:,.2f}, planned {dollars(planned)}" if cost is not None and planned is not None else ""
    return f"{format_duration(took)} so far{hours}{money}"


def lines(folder: Path) -> Iterator[str]:
    """Jobs that were started, with what they took beside the plan, and looks that were made. Raises UserError for a
    damaged state."""
    kept = state.existing(folder)
    study = state.study_of(kept)
    machine, every = known_jobs(study, kept.tree)
    jobs = [one for one in every if one.id in kept.tree["jobs"]]
    yield f"{folder.resolve().name}: {study.title}"
    yield f"of the jobs started {done_of(kept, [one.id for one in jobs])}"
    for job in jobs:
        there, last = kept.job(job.id), kept.attempts(job.id)[-1:]
        word = "done" if there["done"] else "under way"
        if last and last[0].get("seconds") is None:
            word = f"running or killed, started {format_duration(time.time() - last[0]['started'])} ago"
        samples = f", {there['samples']} samples a problem" if "samples" in there else ""
        yield f"  {job.id}: {word}{samples}; {spent_on(kept, machine, job)}"
    for name, made in kept.tree["looks"].items():
        planned = planned_looks(study, name, rounds_of(kept, name))
        word = made[-1].get("word", "not finished")
        yield f"  {name}: look {len(made)} of {len(planned)}, with {made[-1]['samples']} samples a problem: {word}"
    for line in last_lines(folder / "log", 1):
        yield f"log     {line}"
    yield f"claims and verdicts: openrs report {folder}"


def watch(folder: Path, every: float, *, once: bool = False, pause: Callable[[float], None] = time.sleep) -> None:
    """In a terminal one picture that is drawn again until Ctrl-C; elsewhere, and with `once`, one look."""
    if once or not sys.stdout.isatty():
        say("\n".join(lines(folder)))
        return
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    while True:
        size = shutil.get_terminal_size()
        redraw(fitted(lines(folder), max(20, size.columns), unicode=unicode)[: max(1, size.lines - 1)])
        pause(every)

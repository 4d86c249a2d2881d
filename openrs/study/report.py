"""The report on a study, at any time: its claims with their verdicts, what is open, and what that would cost."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from openrs.report.evidence.sources import Sources, gather
from openrs.report.pages.document import StudyFacts, document
from openrs.report.pages.page import write
from openrs.report.verdicts.claims import UNDECIDED, Claim
from openrs.report.verdicts.cost import Ledger
from openrs.run.folders import Kind, kind_of
from openrs.run.units import format_duration
from openrs.study import looks, state
from openrs.study.jobs import Job, Machine, Range, expanded, known_jobs, total
from openrs.study.plan import why_never
from openrs.study.settings import SEQUENTIAL, Study, place_of_run, study_claims
from openrs.study.state import EVALUATIONS, State

ESTIMAND = (
    "Verdicts on scores are about these very problems, whose samples are the only noise. What holds for all problems"
    " of the kind would need more problems, not more samples: its error never falls below the spread of differences"
    " over problems divided by the root of their number, and looks would have to be planned in problems."
)


def write_study_report(folder: Path, out: Path | None = None, price: float | None = None) -> Path:
    """Write report.html, report.md and report.json; returns the page's path. Raises UserError for a damaged state."""
    sources = runs_of(folder)
    return write(sources, out or folder, document(sources, price, facts_of(folder)))


def facts_of(folder: Path) -> StudyFacts:
    """What the study in a folder adds to a report on its runs."""
    kept = state.existing(folder)
    study = state.study_of(kept)
    every = study_claims(study)
    return StudyFacts(
        study.title,
        every,
        partial(looks.cut, study),
        looks.prepared(study, kept, looks.evaluations(folder / EVALUATIONS)),
        lambda words, ledgers: study_tree(study, kept, every, words, ledgers),
        {claim.id: runs_about(study, claim) for claim in every if claim.kind == "improves"},
    )


def runs_of(folder: Path) -> Sources:
    """Everything that the study's runs hold. A run is a folder in the study's."""
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.is_symlink() and (kind_of(path) is Kind.RUN or (path / "eval").is_dir())
    ]
    return gather([f"{path}/" for path in found])


def runs_about(study: Study, claim: Claim) -> list[str]:
    """The names of the runs that a claim on a recipe of one's own is about."""
    needs = [need for needs in study.claims[claim.id].needs for need in needs]
    return [place_of_run(study, need, seed) for need in needs for seed in study.trainings[need].seeds]


def study_tree(
    study: Study, kept: State, every: list[Claim], words: Mapping[str, str], ledgers: Mapping[str, Ledger | None]
) -> dict[str, Any]:
    """What report.json says of the study."""
    machine, jobs = known_jobs(study, kept.tree)
    open_claims = [
        claim
        for claim in every
        if is_open(study, kept, claim, words[claim.id])
        and not (claim.at_most == "reproduced" and why_never(claim, machine))  # nothing on this machine decides it
    ]
    spent = kept.dollars()
    decided = sum(word in ("reproduced", "not reproduced", "smaller than the margin") for word in words.values())
    said = [
        f"{decided} of {len(every)} claims decided, {len(open_claims)} open.",
        f"{format_duration(kept.seconds())} of wall clock"
        + (f" and ${spent:,.2f} were spent." if spent else " so far."),
    ]
    return {
        "title": study.title,
        "file": Path(kept.tree["file"]).name,
        "sha256": study.hash,
        "changed_after_looking": kept.changed_after_looking,
        "changes": kept.tree["accepted"],
        "said": said,
        "open": [open_entry(study, kept, claim, words[claim.id], jobs=jobs, machine=machine) for claim in open_claims],
        "jobs": [job_entry(kept, job, machine, ledgers) for job in jobs if job.id in kept.tree["jobs"]],
        "estimand": ESTIMAND,
    }


def is_open(study: Study, kept: State, claim: Claim, word: str) -> bool:
    """Whether more money could bring a verdict: of a claim that is looked at, as long as a look is left."""
    if claim.kind in SEQUENTIAL and study.claims[claim.id].looks:
        return not looks.closed(study, kept, claim.id)
    return claim.at_most != "by construction" and word in UNDECIDED


def open_entry(
    study: Study, kept: State, claim: Claim, word: str, *, jobs: list[Job], machine: Machine
) -> dict[str, Any]:
    done = kept.done()
    ways: list[tuple[Range | None, list[str]]] = []
    for needs in study.claims[claim.id].needs:
        every = {one.id: one for need in needs for one in expanded(need, jobs)}
        missing = [job for name, job in every.items() if name not in done]
        ways.append((total(rest_of(kept, job) for job in missing), [job.id for job in missing]))
    hours, names = min(ways, key=lambda way: way[0].expected if way[0] else 0.0, default=(None, []))
    dollars = machine.dollars(hours) if names else None
    return {
        "id": claim.id,
        "verdict": word,
        "looks": looks.rounds_of(kept, claim.id),
        "needs": names,
        "hours": asdict(hours) if hours and names else None,
        "dollars": asdict(dollars) if dollars else None,
    }


def rest_of(kept: State, job: Job) -> Range | None:
    """Hours of what a job still lacks: of an evaluation, the samples that are not there."""
    there = kept.samples(job.id)
    if job.hours is None or not job.samples or not there:
        return job.hours
    return job.hours.times(max(0.0, 1 - there / job.samples))


def job_entry(kept: State, job: Job, machine: Machine, ledgers: Mapping[str, Ledger | None]) -> dict[str, Any]:
    """What a job took, by the study's clock and, of a training, by its run's own ledger, beside what was planned."""
    known = kept.tree["jobs"][job.id]
    planned = machine.dollars(job.hours)
    attempts = kept.attempts(job.id)
    # A ledger's times are whole seconds, rounded down: what begins in the second in which a job ends is the next one's.
    spans = [(int(one["started"]), int(one["started"] + kept.took(one))) for one in attempts]
    book = ledgers.get(str(attempts[-1].get("folder"))) if attempts else None
    counted = book.seconds_within(spans) if book is not None else None
    return {
        "id": job.id,
        "state": "done" if known["done"] else "under way",
        "samples": known.get("samples"),
        "planned_hours": asdict(job.hours) if job.hours else None,
        "planned_dollars": asdict(planned) if planned else None,
        "hours": kept.seconds(job.id) / 3600,
        "ledger_hours": None if counted is None else counted / 3600,
        "dollars": kept.dollars(job.id),
    }

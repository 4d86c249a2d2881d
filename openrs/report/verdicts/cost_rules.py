"""Rules on what a training takes: samples, outputs, hours, dollars.

Samples and outputs are fixed by the recipe before anything runs. A time or a price is claimed as `at most`, and one run
that keeps it shows no more than that it kept it: three whole runs are needed, as for every claim on training.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.values import below, dollars, duration, short, whole
from openrs.report.verdicts.claims import SEEDS, Claim, ClaimVerdict, Evidence, not_tested
from openrs.report.verdicts.cost import Ledger
from openrs.report.verdicts.family import Prepared
from openrs.report.verdicts.training_rules import in_all, of_paper, seeds_said

TOLERANCE = 1.05  # a cost or time is kept when it is not more than 5 % above the published one
Booked = tuple[RunData, Ledger]


# --- fixed by the recipe ----------------------------------------------------------------------------------------------


def samples(claim: Claim, evidence: Evidence) -> Prepared:
    sums = reference.arithmetic()
    counted = [(run, whole(below(run.manifest, "data", "rows"))) for run in of_paper(evidence.runs, claim.experiments)]
    known = [(run, rows) for run, rows in counted if rows is not None]
    said = (
        f"{sums['prompts']:,} prompts are drawn in {sums['steps']} steps, from a file of {claim.published:,.0f} rows:"
        f" {claim.published:,.0f} is the size of the file"
    )
    said += "".join(f"; {run.name}: {rows:,} rows" for run, rows in known)
    numbers = {"prompts": sums["prompts"], "rows": [rows for _, rows in known]}
    return _constructed(claim, said, numbers, [run for run, _ in known])


def outputs(claim: Claim, evidence: Evidence) -> Prepared:
    sums = reference.arithmetic()
    drawn = [(run, count) for run in of_paper(evidence.runs, claim.experiments) if (count := _drawn(run))]
    said = (
        f"{sums['completions']:,} outputs are drawn in {sums['steps']} steps of {sums['completions_per_step']}, not"
        f" {claim.published:,.0f}: that would take every one of 7,000 samples once"
    )
    said += "".join(f"; {run.name}: {short(count)} in {len(run.metrics.steps)} steps" for run, count in drawn)
    numbers = {"by_recipe": sums["completions"], "outputs": [count for _, count in drawn]}
    return _constructed(claim, said, numbers, [run for run, _ in drawn])


def _constructed(claim: Claim, said: str, numbers: Mapping[str, Any], runs: Sequence[RunData]) -> ClaimVerdict:
    return ClaimVerdict("by construction", said, claim.limit, numbers, tuple(run.name for run in runs), None)


def _drawn(run: RunData) -> float | None:
    """Completions drawn, when every step tells its prompts."""
    group = whole(below(run.recipe, "grpo", "num_generations"))
    prompts = run.metrics.between("prompts")
    return group * sum(prompts) if group and prompts and len(prompts) == len(run.metrics.steps) else None


# --- at most ----------------------------------------------------------------------------------------------------------


def hours(claim: Claim, evidence: Evidence) -> Prepared:
    rule = f"a whole training on four A40 takes at most 5 % more than {claim.published:g} hours, evaluations left out"
    booked = _whole_runs(claim, evidence)
    if isinstance(booked, ClaimVerdict):
        return booked
    took = [book.training_seconds / 3600 for _, book in booked]
    there = zip(booked, took, strict=True)
    fit = [(run, value, f"{value:.1f} h") for (run, book), value in there if _on_paper_gpus(book)]
    if not fit:
        return not_tested(claim, _elsewhere(booked, [f"{value:.1f} h" for value in took]), hours=took)
    return _at_most(claim, fit, TOLERANCE * (claim.published or 0), rule, "hours")


def money(claim: Claim, evidence: Evidence) -> Prepared:
    rule = f"a whole training on four A40 costs at most 5 % more than ${claim.published:g}, at the price given"
    booked = _whole_runs(claim, evidence)
    if isinstance(booked, ClaimVerdict):
        return booked
    fit = [
        (run, book.training_dollars, f"{dollars(book.training_dollars)} at {dollars(book.price)} per GPU-hour")
        for run, book in booked
        if book.training_dollars is not None and _on_paper_gpus(book)
    ]
    if not fit:
        told = [dollars(book.training_dollars) if book.training_dollars else "without a price" for _, book in booked]
        return not_tested(claim, _elsewhere(booked, told))
    return _at_most(claim, fit, TOLERANCE * (claim.published or 0), rule, "dollars")


def cheaper(claim: Claim, evidence: Evidence) -> Prepared:
    least = min(row["usd"] for row in reference.tree()["costs"] if row["usd"] and row["model"] != "Open-RS")
    rule = (
        f"a whole training costs less than a tenth of the cheapest baseline's published {dollars(least)}; the baselines"
        " were not run again"
    )
    booked = _whole_runs(claim, evidence)
    if isinstance(booked, ClaimVerdict):
        return booked
    spent = [(run, book.training_dollars) for run, book in booked]
    fit = [(run, value, dollars(value)) for run, value in spent if value is not None]
    if not fit:
        return not_tested(claim, f"{booked[0][0].name} has no price")
    return _at_most(claim, fit, least / 10, rule, "dollars")


def _at_most(
    claim: Claim, fit: Sequence[tuple[RunData, float, str]], most: float, rule: str, name: str
) -> ClaimVerdict:
    """The verdict on `at most`: kept in all of three or more whole runs, in none of them, or not to be told."""
    kept, word = in_all([value <= most for _, value, _ in fit])
    each = "; ".join(f"{run.name}: {said}" for run, _, said in fit)
    said = f"at most {claim.published:g} {name}" if claim.published else "a tenth of the cheapest baseline"
    text = f"{said}: kept in {kept} of {seeds_said(len(fit))}: {each}"
    text += f"; follows from {claim.follows_from}" if claim.follows_from else ""
    numbers = {name: [value for _, value, _ in fit], "at_most": most, "kept": kept}
    rule = f"{rule}; in all of {SEEDS} or more runs: reproduced; in none of them: not reproduced; else cannot tell"
    return ClaimVerdict(word, text, rule, numbers, tuple(run.name for run, _, _ in fit), "L3")


def _whole_runs(claim: Claim, evidence: Evidence) -> list[Booked] | ClaimVerdict:
    """Runs of the paper's experiments that trained all 500 steps; else the verdict, with the pace of the longest."""
    steps = int(reference.tree()["training"]["steps"])
    pairs = [
        (run, book)
        for run, book in zip(evidence.runs, evidence.ledgers, strict=True)
        if book is not None and run.metrics.steps
    ]
    done = [run for run, _ in pairs if run.metrics.steps[-1] >= steps]
    whole_ones = {id(run) for run in of_paper(done, claim.experiments)}
    if whole_ones:
        return [(run, book) for run, book in pairs if id(run) in whole_ones]
    parts = {id(run) for run in of_paper([run for run, _ in pairs], claim.experiments)}
    if not parts:
        return not_tested(claim)
    begun = [(run, book) for run, book in pairs if id(run) in parts]
    run, book = max(begun, key=lambda pair: (len(pair[0].metrics.steps), pair[0].name))
    a_step = book.training_seconds / max(1, book.steps)
    said = (
        f"{run.name} has {run.metrics.steps[-1]} of {steps} steps;"
        f" at its pace {steps} take {duration(a_step * steps)} on {book.gpus} x {book.gpu or 'no GPU'}"
    )
    return not_tested(claim, said, steps=run.metrics.steps[-1], seconds_per_step=a_step)


def _on_paper_gpus(book: Ledger) -> bool:
    asked = reference.tree()["training"]
    return book.gpus == asked["gpus"] and str(asked["gpu"]) in book.gpu


def _elsewhere(booked: Sequence[Booked], told: Sequence[str]) -> str:
    return "; ".join(
        f"{run.name} trained on {book.gpus} x {book.gpu or 'no GPU'}: {said}"
        for (run, book), said in zip(booked, told, strict=True)
    )

"""Rules on what a training takes: samples, outputs, hours, dollars. They need a whole run (500 steps)."""

from collections.abc import Callable, Mapping, Sequence

from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.values import below, dollars, duration, short, whole
from openrs.report.verdicts.claims import Claim, ClaimVerdict, Evidence, Rule, Word, not_tested
from openrs.report.verdicts.cost import Ledger
from openrs.report.verdicts.training_rules import of_paper

TOLERANCE = 1.05  # a cost or time is kept when it is not more than 5 % above the published one


def samples(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    found = []
    for claim in family:
        runs = of_paper(evidence.runs, claim.experiments)
        counts = [(run.name, whole(below(run.manifest, "data", "rows"))) for run in runs]
        known = [(name, rows) for name, rows in counts if rows is not None]
        equal = [(name, rows) for name, rows in known if rows == claim.published]
        word: Word = "reproduced" if equal else "not reproduced"
        said = "; ".join(f"{name}: {rows:,} rows" for name, rows in known)
        rule = "the run's data has as many rows as published"
        numbers = {"rows": [rows for _, rows in known]}
        names = tuple(name for name, _ in known)
        found.append(ClaimVerdict(word, said, rule, numbers, names, "L0") if known else not_tested(claim))
    return found


def outputs(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    return [_whole_run(claim, evidence, _outputs) for claim in family]


def hours(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    return [_whole_run(claim, evidence, _hours) for claim in family]


def money(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    return [_whole_run(claim, evidence, _dollars) for claim in family]


def cheaper(family: Sequence[Claim], evidence: Evidence) -> list[ClaimVerdict]:
    return [_whole_run(claim, evidence, _cheaper) for claim in family]


Whole = Callable[[Claim, RunData, Ledger], ClaimVerdict]


def _whole_run(claim: Claim, evidence: Evidence, rule: Whole) -> ClaimVerdict:
    """Apply a rule to the longest run of the paper's experiments, if it trained all 500 steps."""
    pairs = [(run, book) for run, book in zip(evidence.runs, evidence.ledgers, strict=True) if book is not None]
    fit = {id(run) for run in of_paper([run for run, _ in pairs], claim.experiments)}
    run, book = max(
        ((run, book) for run, book in pairs if id(run) in fit),
        key=lambda pair: len(pair[0].metrics.steps),
        default=(None, None),
    )
    if run is None or book is None or not run.metrics.steps:
        return not_tested(claim)
    steps = int(reference.tree()["training"]["steps"])
    if run.metrics.steps[-1] < steps:
        a_step = book.training_seconds / max(1, book.steps)
        said = (
            f"{run.name} has {run.metrics.steps[-1]} of {steps} steps;"
            f" at its pace {steps} take {duration(a_step * steps)} on {book.gpus} x {book.gpu or 'no GPU'}"
        )
        return not_tested(claim, said, steps=run.metrics.steps[-1], seconds_per_step=a_step)
    return rule(claim, run, book)


def _outputs(claim: Claim, run: RunData, book: Ledger) -> ClaimVerdict:
    group = whole(below(run.recipe, "grpo", "num_generations"))
    prompts = run.metrics.between("prompts", 0, run.metrics.steps[-1])
    if not group or len(prompts) < book.steps:
        return not_tested(claim, f"{run.name} does not tell how many completions were drawn")
    drawn = group * sum(prompts)
    near = abs(drawn / (claim.published or 1) - 1) <= TOLERANCE - 1
    said = f"{run.name} drew {short(drawn)} completions in {book.steps} steps"
    rule = "completions drawn within 5 % of the published number"
    return ClaimVerdict("reproduced" if near else "not reproduced", said, rule, {"outputs": drawn}, (run.name,), "L3")


def _on_paper_gpus(book: Ledger) -> bool:
    asked = reference.tree()["training"]
    return book.gpus == asked["gpus"] and str(asked["gpu"]) in book.gpu


def _hours(claim: Claim, run: RunData, book: Ledger) -> ClaimVerdict:
    took = book.training_seconds / 3600
    if not _on_paper_gpus(book):
        return not_tested(
            claim, f"{run.name} trained on {book.gpus} x {book.gpu or 'no GPU'}: {took:.1f} h", hours=took
        )
    kept = took <= TOLERANCE * (claim.published or 0)
    rule = "a whole training on four A40 takes at most 5 % more than published, evaluations left out"
    said = f"{run.name}: {took:.1f} h of training for {book.steps} steps"
    return ClaimVerdict("reproduced" if kept else "not reproduced", said, rule, {"hours": took}, (run.name,), "L3")


def _dollars(claim: Claim, run: RunData, book: Ledger) -> ClaimVerdict:
    spent = book.training_dollars
    if spent is None or not _on_paper_gpus(book):
        where = f"{run.name} trained on {book.gpus} x {book.gpu or 'no GPU'}"
        return not_tested(claim, f"{where}: {dollars(spent)}" if spent else f"{where}, without a price", dollars=spent)
    kept = spent <= TOLERANCE * (claim.published or 0)
    rule = "a whole training on four A40 costs at most 5 % more than published, at the price given"
    said = f"{run.name}: {dollars(spent)} at {dollars(book.price)} per GPU-hour ({book.price_from})"
    return ClaimVerdict("reproduced" if kept else "not reproduced", said, rule, {"dollars": spent}, (run.name,), "L3")


def _cheaper(claim: Claim, run: RunData, book: Ledger) -> ClaimVerdict:
    spent = book.training_dollars
    if spent is None:
        return not_tested(claim, f"{run.name} has no price")
    least = min(row["usd"] for row in reference.tree()["costs"] if row["usd"] and row["model"] != "Open-RS")
    said = f"{run.name}: {dollars(spent)}; the cheapest baseline is published with {dollars(least)}"
    rule = "less than a tenth of the cheapest baseline's published cost; the baselines were not run again"
    word: Word = "reproduced" if spent < least / 10 else "not reproduced"
    return ClaimVerdict(word, said, rule, {"dollars": spent, "cheapest_baseline": least}, (run.name,), "L3")


RULES: Mapping[str, Rule] = {
    "samples": samples,
    "outputs": outputs,
    "hours": hours,
    "dollars": money,
    "cheaper": cheaper,
}

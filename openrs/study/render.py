"""A study's plan as a person reads it: in a terminal, and as a page of one file. Never imports torch."""

from collections.abc import Sequence
from pathlib import Path

from openrs.planner.render import wrapped
from openrs.planner.times import LEAST, MOST
from openrs.report.verdicts.claims import ALPHA, Claim
from openrs.run.disk_faults import written_to
from openrs.run.files import write_text
from openrs.study.jobs import Range, total
from openrs.study.looks import family, times_of
from openrs.study.plan import Row, StudyPlan
from openrs.study.sequential import last_boundary
from openrs.study.settings import SEQUENTIAL

INDENT = " " * 6


def text(plan: StudyPlan, budget: float | None = None, hours: float | None = None) -> str:
    """The whole answer of `openrs reproduce STUDY --plan`."""
    limits = [] if budget is None else [f"${budget:,.2f}"]
    limits += [] if hours is None else [f"{hours:g} hours"]
    within = f" within {' and '.join(limits)}" if limits else ""
    machine = plan.machine
    price = "no price is known: give --price" if machine.price is None else f"${machine.price:g} per GPU-hour"
    blocks = [
        f"{plan.study.title}\non {machine.gpus} x {machine.gpu.name}, {price}",
        wrapped(f"{headline(plan)}{within}", INDENT),
        table("most decisive first", plan.rows, plan),
        table(f"not{within}", plan.beyond, plan),
        also(plan),
        never(plan),
        "\n".join(notes(plan)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def headline(plan: StudyPlan) -> str:
    """How many claims are decided for how much; what is only tested costs extra."""
    deciding = [row.total for row in plan.rows if row.decides]
    for_how_much = f" for {dollars(deciding[-1])}" if deciding and deciding[-1] is not None else ""
    said = f"{len(plan.decided)} of {len(plan.decidable)} claims that data can decide can be decided{for_how_much}"
    whole = plan.rows[-1].total if plan.rows else None
    more = whole is not None and not plan.rows[-1].decides
    return f"{said}; with those that can only be tested, {dollars(whole)}" if more else said


def table(title: str, rows: Sequence[Row], plan: StudyPlan) -> str:
    if not rows:
        return ""
    width = max(24, *(len(row.name) for row in rows)) + 2
    heads = f"  {'job':{width}s}{'samples':>8s}{'seeds':>7s}{'hours':>8s}  {'dollars (range)':24s}{'sum':>9s}"
    lines = [title, heads]
    for row in rows:
        samples = "-" if row.jobs[0].samples is None else str(row.jobs[0].samples)
        seeds = str(len(row.seeds)) if row.seeds else "-"
        hours = "-" if row.hours is None else f"{row.hours.expected:.1f}"
        spent = "-" if row.total is None else f"${row.total.expected:,.2f}"
        lines.append(
            f"  {row.name:{width}s}{samples:>8s}{seeds:>7s}{hours:>8s}  {dollars(row.dollars):24s}{spent:>9s}"
            + ("  DOES NOT FIT" if row.jobs[0].fits is False else "")
        )
        if row.decides:
            decides = ", ".join(_with_power(name, plan) for name in row.decides)
            lines.append(wrapped(f"{INDENT}decides {decides}", INDENT))
        if row.tests:
            lines.append(wrapped(f"{INDENT}tests {', '.join(row.tests)}", INDENT))
    return "\n".join(lines)


def dollars(amount: Range | None) -> str:
    return "-" if amount is None else f"${amount.expected:,.2f} ({amount.low:,.2f} to {amount.high:,.2f})"


def _with_power(name: str, plan: StudyPlan) -> str:
    power = plan.powers.get(name)
    return name if power is None else f"{name} ({power.paper:.2f} / {power.again:.2f})"


def also(plan: StudyPlan) -> str:
    """Jobs that no claim needs, an entry a line."""
    entries: dict[str, list[Row]] = {}
    for row in plan.others:
        entries.setdefault(row.jobs[0].entry, []).append(row)
    if not entries:
        return ""
    head = "for no claim: baselines, checkpoints, other ways to the same verdicts (--also NAME,NAME runs them as well)"
    lines = [f"  {name:26s}{dollars(total(row.dollars for row in rows))}" for name, rows in entries.items()]
    return "\n".join([head, *lines])


def never(plan: StudyPlan) -> str:
    if not plan.never:
        return ""
    reasons: dict[str, list[str]] = {}
    for claim, reason in plan.never:
        reasons.setdefault(reason, []).append(claim.id)
    lines = [wrapped(f"  {reason}: {', '.join(names)}", INDENT) for reason, names in reasons.items()]
    return "\n".join(["what no money decides", *lines])


def notes(plan: StudyPlan) -> list[str]:
    """How the figures came about, and what looking costs."""
    found = []
    if plan.powers:
        found.append(
            "In brackets: chance of a verdict if the paper is right / if the re-evaluations are right, simulated"
            " through the claims' own rules (docs/study.md says what is assumed)."
        )
    found += looks(plan)
    found.append(
        f"Hours and dollars are the planner's, and in brackets its uncertainty: evaluations {LEAST:g} to {MOST:g} times"
        " (the authors' logs on one A40), trainings from the planner's fast end to its cautious one, which is planned"
        " with. No GPU has confirmed them. Every job is planned to load its model anew."
    )
    return [wrapped(note, "") for note in found]


def looks(plan: StudyPlan) -> list[str]:
    """What looking in between costs each claim: the last boundary instead of the fixed one."""
    different: dict[tuple[tuple[int, ...], tuple[float, ...], int], list[Claim]] = {}
    for claim in plan.claims:
        if claim.kind in SEQUENTIAL and plan.study.claims[claim.id].looks:
            planned, tests = plan.study.claims[claim.id].looks, len(family(plan.study, (claim.kind,)))
            different.setdefault((tuple(planned), times_of(plan.study, claim, planned), tests), []).append(claim)
    found = []
    for (samples, times, tests), claims in different.items():
        (bound, p_value), (single, _) = (last_boundary(at, ALPHA / tests) for at in (times, (1.0,)))
        found.append(
            f"{', '.join(claim.id for claim in claims)}: looked at with {', '.join(map(str, samples))} samples a"
            f" problem; what is clear ends early. The last look asks for z {bound:.3f} (p {p_value:.4f}), not"
            f" {single:.3f}"
            f" (p {ALPHA / tests:.4f}): Holm's first step over the {tests} claims of one question."
        )
    return found


def write_page(plan: StudyPlan, path: Path) -> Path:
    """The page, with the frontier of dollars against claims decided. Raises UserError where nothing can be written."""
    from openrs.report.pages import page, plots  # matplotlib, which `openrs watch` of a study needs not

    points, spent = plan.frontier(), plan.rows[-1].total if plan.rows else None
    curve = plots.frontier(points, spent.expected if spent else 0.0, len(plan.decidable)) if len(points) > 1 else None
    told = [" ".join(note.split()) for note in notes(plan)]
    html = page.rendered("study_plan.html", plan=plan, headline=headline(plan), frontier=curve, notes=told)
    with written_to(path, "--page"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, html)
    return path

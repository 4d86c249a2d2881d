"""report.json: every number of the report, once. The page and report.md show this tree (schema: docs/report.md)."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrs import __version__
from openrs.report.evidence.collect import Metrics, RunData
from openrs.report.evidence.evaluations import Change, Evaluated
from openrs.report.evidence.sources import Measured, Sources, measured, pooled
from openrs.report.evidence.values import below, fields_of, text, whole
from openrs.report.pages.published import published, with_measured
from openrs.report.verdicts import claims as claim_room
from openrs.report.verdicts.claims import Claim, ClaimVerdict, Evidence
from openrs.report.verdicts.compare import comparison, over_training
from openrs.report.verdicts.cost import Ledger, ledger
from openrs.report.verdicts.family import Tests
from openrs.report.verdicts.judge import FAMILIES, judge
from openrs.report.verdicts.levels import levels
from openrs.report.verdicts.selection import of_run as of_run_selection
from openrs.run.files import now

SCHEMA = 2
ALARMS = 100  # of the monitors, the first ones

# What a table of the training says: metrics.jsonl's names -> words.
TRAINING = {
    "reward": "reward",
    "accuracy": "accuracy",
    "completions/mean_length": "mean length (tokens)",
    "completions/clipped_ratio": "share cut off at the cap",
    "kl": "KL from the start",
    "entropy": "entropy",
    "frac_reward_zero_std": "groups without a signal",
    "grad_norm": "gradient norm",
    "time/step": "seconds per step",
}


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What a study adds to a report.

    claims: those that it asks about. cut: the scores as claims count them that are judged once, where sampling went on
    for others. known: tests that count the looks made. tree: what report.json says of the study itself, given each
    claim's word and the ledgers by the runs' names. own: of a claim that is not the paper's, the names of the runs
    that it is about.
    """

    title: str
    claims: Sequence[Claim]
    cut: Callable[[Sequence[Measured]], Sequence[Measured]]
    known: Mapping[str, Tests]
    tree: Callable[[Mapping[str, str], Mapping[str, Ledger | None]], dict[str, Any]]
    own: Mapping[str, Collection[str]]


def document(
    sources: Sources, price: float | None = None, study: StudyFacts | None = None, *, paper: bool = False
) -> dict[str, Any]:
    """The tree of a report, of plain JSON values (no NaN). price: dollars per GPU-hour, over the recipe's.

    paper: lead with the claims whatever the runs are; a study does that anyway.
    """
    ledgers = [ledger(run, price) for run in sources.runs]
    found = measured(sources)
    evidence = Evidence(pooled(study.cut(found) if study else found), sources.runs, ledgers)
    judged = judge(evidence, study.claims, study.own, study.known) if study else judge(evidence)
    kinds_asked = {claim.kind for claim, _ in judged}
    broken = sources.results.broken if sources.results else ()
    many = len(sources.runs) > 1
    said = [f"{run.name}: {note}" if many else note for run in sources.runs for note in run.notes]
    said += [f"{text(one.path)}: {text(one.reason)}" for one in broken]
    known = {claim.id for claim, _ in judged}
    for run in sources.runs:
        said += [f"{run.name}: its recipe names a claim {one} that is none" for one in named(run, known)]
    tree = {
        "schema": SCHEMA,
        "made": now(),
        "openrs": __version__,
        "title": study.title if study else title(sources),
        "focus": "paper" if paper or study is not None else focus(sources, judged),
        "levels": levels(evidence, judged),
        "questions": {question: list(kinds) for question, kinds in FAMILIES.items() if kinds_asked & set(kinds)},
        "verdicts": {word: sum(verdict.word == word for _, verdict in judged) for word in claim_room.WORDS},
        "claims": [claim_room.as_json(claim, verdict) for claim, verdict in judged],
        "runs": [of_run(run, book) for run, book in zip(sources.runs, ledgers, strict=True)],
        "comparison": comparison(sources.runs),
        "results": results(found, judged),
        "published": with_measured(published(), found),
        "missing": list(dict.fromkeys(said)),
    }
    if study:
        books = {run.name: book for run, book in zip(sources.runs, ledgers, strict=True)}
        tree["study"] = study.tree({claim.id: verdict.word for claim, verdict in judged}, books)
    return dict(plain(tree))


def focus(sources: Sources, judged: list[tuple[Claim, ClaimVerdict]]) -> str:
    """`own` for runs that are none of the paper's experiments and no evidence on its claims, else `paper`."""
    evidence = any(verdict.word not in claim_room.NO_EVIDENCE for _, verdict in judged)
    of_paper = sources.results is not None or any(run.experiment for run in sources.runs)
    return "paper" if evidence or of_paper or not sources.runs else "own"


def named(run: RunData, known: set[str]) -> list[str]:
    """Claims that the recipe names (paper.claims) and that there are not."""
    found = below(run.recipe, "paper", "claims")
    return [name for one in found if (name := text(one, 60)) not in known] if isinstance(found, list) else []


def title(sources: Sources) -> str:
    names = [run.name for run in sources.runs]
    if names:
        return " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more runs"
    return "Other people's results" if sources.results else "The published figures"


def of_run(run: RunData, book: Ledger | None) -> dict[str, Any]:
    """One run: what it is, its scores, base against checkpoints, its training, its cost, its manifest."""
    return {
        "run": about(run),
        "evaluations": [evaluation(one) for one in run.evaluations],
        "differences": over_training(run),
        "changes": [change(one) for one in run.changes],
        "selection": of_run_selection(run),
        "training": training(run.metrics),
        "cost": book.as_json() if book else None,
        "manifest": {key: value for key, value in run.manifest.items() if key != "attempts"},
    }


def about(run: RunData) -> dict[str, Any]:
    """Which run this is and in which state its records are."""
    last = run.attempts[-1] if run.attempts else {}
    return {
        "name": run.name,
        "title": text(run.recipe.get("title")) or None,
        "experiment": run.experiment,
        "recipe_sha256": text(below(run.manifest, "recipe", "sha256"), 64) or None,
        "rewards_mode": text(below(run.recipe, "rewards", "mode"), 20) or None,
        "rewards": rewards(run),
        "seed": run.seed,
        "code": text(below(run.manifest, "openrs", "version"), 40) or None,
        "commit": text(below(run.manifest, "openrs", "commit"), 40) or None,
        "attempts": len(run.attempts),
        "state": state(run),
        "reason": text(last.get("reason"), 300) or None,
        "steps": run.metrics.steps[-1] if run.metrics.steps else 0,
        "steps_planned": run.planned,
        "checkpoints": run.checkpoints,
        "final_step": run.final.step if run.final else None,
        "evaluated_by": text(below(run.recipe, "evaluation", "checkpoints"), 20) or None,
    }


def rewards(run: RunData) -> list[str]:
    """Names of the reward functions, with weights."""
    found = below(run.recipe, "rewards", "functions")
    named = [one for one in found if below(one, "name")] if isinstance(found, list) else []
    return [f"{text(one['name'], 60)} x {text(one.get('weight', 1.0), 10)}" for one in named]


def state(run: RunData) -> str:
    """In which state the run was left, as far as its manifest tells."""
    if not run.attempts:
        return "no training recorded" if not run.metrics.steps else "unknown"
    code = whole(run.attempts[-1].get("exit_code"))
    if code is not None:
        return "done" if code == 0 else "stopped"
    ready = run.planned is not None and run.metrics.steps and run.metrics.steps[-1] >= run.planned and run.final
    return "trained and evaluated" if ready else "running, or killed"


def change(one: Change) -> dict[str, Any]:
    """A problem won or lost, with an answer of base and final checkpoint; their texts are on the page only."""
    return {
        **fields_of(one, "texts"),
        "answers": [dict(answer.facts).get("answer") if answer else None for answer in one.texts],
        "verdicts": [answer.verdict if answer else None for answer in one.texts],
    }


def evaluation(one: Evaluated) -> dict[str, Any]:
    proven, departures = below(one.inputs, "proven"), one.protocol.get("departures")
    return {
        **fields_of(one, "inputs", "scores", "cells", "tokens", "texts"),
        "label": one.label,
        "departures": [line for line in departures if isinstance(line, str)] if isinstance(departures, list) else [],
        "inputs_proven": proven if isinstance(proven, bool) else None,
        "benchmarks": {
            name: {
                **fields_of(score, "benchmark", "per_problem", "fault"),
                "verdicts": dict(Counter(score.verdicts).most_common()),
                "inputs": one.inputs_of(name),
            }
            for name, score in one.scores.items()
        },
    }


def training(metrics: Metrics) -> dict[str, Any]:
    """First and last tenth of the steps (at least one step each), mean of each metric; the greatest KL and its step."""
    steps = metrics.steps
    window = max(1, len(steps) // 10)
    rows: dict[str, Any] = {}
    for name in [*TRAINING, *sorted(name for name in metrics.columns if name.startswith("rewards/"))]:
        if metrics.has(name):
            values = metrics.columns[name]
            rows[name] = {"first": _known_mean(values[:window]), "last": _known_mean(values[-window:])}
    kl = zip(metrics.columns.get("kl", []), steps, strict=False)
    top = max((pair for pair in kl if not math.isnan(pair[0])), default=None)
    return {
        "steps": len(steps),
        "first_step": steps[0] if steps else None,
        "last_step": steps[-1] if steps else None,
        "window": window if steps else 0,
        "metrics": rows,
        "kl_max": {"value": top[0], "step": top[1]} if top else None,
        "alarms": [{"step": step, "monitor": name} for step, name in metrics.alarms[:ALARMS]],
        "alarms_in_all": len(metrics.alarms),
    }


def results(found: list[Measured], judged: list[tuple[Claim, ClaimVerdict]]) -> list[dict[str, Any]]:
    """Scores from result files, beside what the paper printed."""
    printed = {(claim.model, claim.benchmark): claim.published for claim, _ in judged if claim.kind == "score"}
    rows = []
    for one in found:
        if one.origin in ("authors' log", "a results file"):
            score = printed.get((one.model, one.benchmark))
            row = fields_of(one, "rows", "protocol", "tokens", "excluded_reason", "note")
            row |= {"counts": not one.excluded_reason, "why_not": one.excluded_reason or None, "published": score}
            row["as_printed"] = abs(100 * one.accuracy - score) <= 0.05 + 1e-9 if score is not None else None
            rows.append(row)
    return rows


def plain(value: Any, depth: int = 12) -> Any:
    """JSON values without NaN, infinity, text that cannot be shown, or nesting deeper than `depth`."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bool | int | float) or value is None:
        return value
    if depth and isinstance(value, dict):
        return {text(name, 120): plain(one, depth - 1) for name, one in value.items()}
    if depth and isinstance(value, list | tuple):
        return [plain(one, depth - 1) for one in value]
    return text(value if isinstance(value, str) else type(value).__name__, 2000)


def _known_mean(values: list[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None

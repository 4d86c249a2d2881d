"""Runs side by side: settings that differ, paired differences between their checkpoints, and seeds taken together."""

import json
from collections.abc import Sequence
from typing import Any

from openrs.config.load import diff_trees
from openrs.evaluation.seeds import over_seeds
from openrs.evaluation.statistics import holm
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.evaluations import Evaluated, Score, comparable
from openrs.report.evidence.values import below, text
from openrs.report.verdicts.claims import SEEDS
from openrs.report.verdicts.paired_rules import difference_numbers, one_sided, paired, pooled, shared


def difference(before: Score, after: Score) -> dict[str, Any]:
    """after - before, paired by problem. The numbers are None when the two share fewer than two."""
    both = shared(before.per_problem, after.per_problem)
    test = paired(before.per_problem, after.per_problem) if len(both) > 1 else None
    shares = [[sum(one.per_problem[p]) / len(one.per_problem[p]) for p in both] for one in (before, after)]
    steps = [new - old for old, new in zip(*shares, strict=True)]
    numbers = difference_numbers(test) if test else {"difference": None, "interval": None, "p": None, "n": 0}
    return {
        "benchmark": after.benchmark,
        "before": before.accuracy,
        "after": after.accuracy,
        **numbers,
        "k": [before.k, after.k],
        "gained": sum(step > 0 for step in steps),
        "lost": sum(step < 0 for step in steps),
    }


def differences(before: Evaluated, after: Evaluated) -> list[dict[str, Any]]:
    """Benchmark by benchmark. settings: `same`, or which differ."""
    settings = comparable(before.protocol, after.protocol)
    pairs = [(before.scores[name], score) for name, score in after.scores.items() if name in before.scores]
    return [{**difference(old, new), "settings": settings} for old, new in pairs]


def corrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one table with p_holm, corrected over all of them: over checkpoints as well as over benchmarks."""
    found = holm({str(i): row["p"] for i, row in enumerate(rows) if row["p"] is not None})
    return [{**row, "p_holm": found.get(str(i))} for i, row in enumerate(rows)]


def over_training(run: RunData) -> list[dict[str, Any]]:
    """The base against every evaluated checkpoint of the run; Holm over all of these tests."""
    if run.base is None:
        return []
    return corrected([{"step": later.step, **row} for later in run.later for row in differences(run.base, later)])


def comparison(runs: Sequence[RunData]) -> dict[str, Any] | None:
    """Two or more runs: what differs in their recipes, each checkpoint against the first run's, seeds pooled."""
    if len(runs) < 2:
        return None
    first = runs[0]
    against = []
    for run in runs[1:]:
        old, new = compared(first), compared(run)
        if old is not None and new is not None:
            labels = {"a": f"{first.name}, {old.label}", "b": f"{run.name}, {new.label}"}
            against += [{**labels, **row} for row in differences(old, new)]
    return {
        "runs": [run.name for run in runs],
        "settings": [_settings(first, run) for run in runs[1:] if first.recipe and run.recipe],
        "against_first": corrected(against),
        "seeds": [_pooled(group) for group in seed_groups(runs) if len(group) > 1],
    }


def compared(run: RunData) -> Evaluated | None:
    """The evaluation that stands for a run: its final checkpoint, or the only model there is."""
    scored = [one for one in run.evaluations if one.scores]
    return run.final or (scored[-1] if scored else None)


def _settings(a: RunData, b: RunData) -> dict[str, Any]:
    rows = [{"key": text(k), "a": _shown(old), "b": _shown(new)} for k, old, new in diff_trees(a.recipe, b.recipe)]
    return {"a": a.name, "b": b.name, "changes": rows}


def _shown(value: Any) -> str:
    return text(value if isinstance(value, str) else json.dumps(value, default=str), 120)


def seed_groups(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Runs whose recipes differ in nothing but their seeds, each seed once."""
    groups: dict[str, dict[Any, RunData]] = {}
    for run in runs:
        if run.recipe and run.base is not None and run.final is not None:
            groups.setdefault(_without_seeds(run), {}).setdefault(run.seed, run)
    return [list(group.values()) for group in groups.values()]


def _without_seeds(run: RunData) -> str:
    tree = json.loads(json.dumps(run.recipe, default=str))
    for place, key in ((tree.get("grpo"), "seed"), (below(tree, "model", "toy"), "seed"), (tree, "title")):
        if isinstance(place, dict):
            place.pop(key, None)
    return json.dumps(tree, sort_keys=True)


def _pooled(group: Sequence[RunData]) -> dict[str, Any]:
    """Base against final checkpoint over seeds: the unit is the seed (t over seeds; and all samples paired by problem).

    p is one-sided, of no rise: the larger of both tests.
    """
    names = [set(one.scores) for run in group for one in (run.base, run.final) if one]
    rows = [_benchmark_pooled(group, name) for name in sorted(set.intersection(*names))]
    return {"runs": [run.name for run in group], "seeds": [run.seed for run in group], "benchmarks": rows}


def _benchmark_pooled(group: Sequence[RunData], name: str) -> dict[str, Any]:
    pairs = [(run.base.scores[name], run.final.scores[name]) for run in group if run.base and run.final]
    by_seed = [
        {"run": run.name, "before": old.accuracy, "after": new.accuracy}
        for run, (old, new) in zip(group, pairs, strict=True)
    ]
    pools = [pooled([pair[side].per_problem for pair in pairs]) for side in (0, 1)]
    both = shared(*pools)
    ups = sum(new.accuracy > old.accuracy for old, new in pairs)
    row = {"benchmark": name, "by_seed": by_seed, "difference": None, "interval": None, "p": None}
    complete = all(set(both) == set(score.per_problem) for pair in pairs for score in pair)
    if len(both) < 2 or not complete:
        return {**row, "verdict": "not tested"}
    effect = over_seeds(*([[pair[side].per_problem[p] for p in both] for pair in pairs] for side in (0, 1)))
    test = paired(*pools)
    p_value = max(effect.p_up, one_sided(test)[0])
    sure = p_value < 0.05 and len(pairs) >= SEEDS
    return {
        **row,
        "n": test.n,
        "k": list(test.k),
        "difference": effect.difference,
        "interval": [effect.interval.low, effect.interval.high],
        "p": p_value,
        "verdict": f"better, over {len(pairs)} seeds" if sure else f"better in {ups} of {len(pairs)} seeds",
    }

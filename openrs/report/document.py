"""report.json: every number of the report, once. The page and report.md show this tree (docs/report.md)."""

import math
from collections.abc import Mapping
from typing import Any

from openrs import __version__
from openrs.evaluation.statistics import holm, paired_difference
from openrs.report.collect import Evaluated, Metrics, RunData, Score
from openrs.report.values import below, mapping, text
from openrs.rundir import now

SCHEMA = 1

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


def document(data: RunData) -> dict[str, Any]:
    """The tree of one run, of plain JSON values (no NaN)."""
    return {
        "schema": SCHEMA,
        "made": now(),
        "openrs": __version__,
        "run": about(data),
        "evaluations": [evaluation(one) for one in data.evaluations],
        "differences": differences(data.evaluations),
        "training": training(data.metrics),
        "missing": list(dict.fromkeys(data.notes)),
    }


def about(data: RunData) -> dict[str, Any]:
    """Which run this is and in which state its records are."""
    attempts = data.manifest.get("attempts")
    attempts = [one for one in attempts if isinstance(one, dict)] if isinstance(attempts, list) else []
    last = attempts[-1] if attempts else {}
    code = last.get("exit_code")
    state = "done" if code == 0 else "unknown" if not attempts else "running or killed" if code is None else "stopped"
    return {
        "name": text(data.name),
        "title": text(data.recipe.get("title")) or None,
        "recipe_sha256": text(below(data.manifest, "recipe", "sha256"), 64) or None,
        "rewards_mode": text(below(data.recipe, "rewards", "mode"), 20) or None,
        "code": text(below(data.manifest, "openrs", "version"), 40) or None,
        "commit": text(below(data.manifest, "openrs", "commit"), 40) or None,
        "attempts": len(attempts),
        "state": state,
        "reason": text(last.get("reason"), 300) or None,
        "steps": data.metrics.steps[-1] if data.metrics.steps else 0,
        "steps_planned": below(data.recipe, "grpo", "max_steps"),
        "checkpoints": data.checkpoints,
    }


def evaluation(one: Evaluated) -> dict[str, Any]:
    return {
        "name": one.name,
        "label": one.label,
        "model": one.model,
        "revision": one.revision,
        "step": one.step,
        "protocol": {text(name, 40): plain(value) for name, value in one.protocol.items()},
        "inputs_proven": below(one.inputs, "proven") if isinstance(below(one.inputs, "proven"), bool) else None,
        "samples": one.samples,
        "seconds": dict(one.seconds),
        "benchmarks": {name: score(value) for name, value in one.scores.items()},
    }


def score(value: Score) -> dict[str, Any]:
    return {
        "n": value.n,
        "k": value.k,
        "accuracy": value.accuracy,
        "stderr": value.stderr,
        "interval": list(value.interval) if value.interval else None,
        "pass_at_k": dict(value.pass_at_k),
        "majority": value.majority,
        "truncated": value.truncated,
        "mean_tokens": value.mean_tokens,
        "verdicts": dict(value.verdicts),
    }


def differences(evaluations: list[Evaluated]) -> list[dict[str, Any]]:
    """The base against every checkpoint of the same run, benchmark by benchmark, on the problems that both have.

    p_holm corrects a checkpoint's p-values over its benchmarks.
    """
    base = next((one for one in evaluations if one.step == 0), None)
    found: list[dict[str, Any]] = []
    for later in evaluations:
        if base is not None and later.step:
            pairs = [(base.scores[name], after) for name, after in later.scores.items() if name in base.scores]
            rows = [difference(before, after) for before, after in pairs]
            corrected = holm({row["benchmark"]: row["p"] for row in rows if row["p"] is not None})
            settings = comparable(base.protocol, later.protocol)
            found += [
                {"step": later.step, **row, "p_holm": corrected.get(row["benchmark"]), "settings": settings}
                for row in rows
            ]
    return found


def comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """`same`, or the settings in which two evaluations differ: then a difference of scores is not only the model's."""
    keys = ("temperature", "top_p", "max_tokens", "engine", "bos")
    return ", ".join(key for key in keys if a.get(key) != b.get(key)) or "same"


def difference(before: Score, after: Score) -> dict[str, Any]:
    """after - before, paired by problem. The numbers are None when the two share no problem."""
    shared = [problem for problem in before.per_problem if problem in after.per_problem]
    old, new = [before.per_problem[p] for p in shared], [after.per_problem[p] for p in shared]
    pair = paired_difference(new, old) if shared else None
    steps = [sum(b) / len(b) - sum(a) / len(a) for a, b in zip(old, new, strict=True)]
    return {
        "benchmark": after.benchmark,
        "before": before.accuracy,
        "after": after.accuracy,
        "n": len(shared),
        "k": [before.k, after.k],
        "difference": pair.difference if pair else None,
        "interval": [pair.interval.low, pair.interval.high] if pair else None,
        "p": pair.p_value if pair else None,
        "method": f"{pair.interval.method}; {pair.p_method}" if pair else None,
        "gained": sum(step > 0 for step in steps),
        "lost": sum(step < 0 for step in steps),
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
    }


def plain(value: Any) -> Any:
    """A JSON value without NaN, and without text that cannot be shown."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, dict):
        return {text(name, 80): plain(one) for name, one in mapping(value).items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return text(value, 2000)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _known_mean(values: list[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return _mean(known) if known else None

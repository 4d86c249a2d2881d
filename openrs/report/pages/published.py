"""What the published figures alone say: recomputed averages and prices, intervals, and 46.7 as the best of 21 draws."""

from collections.abc import Mapping
from typing import Any

from openrs.evaluation.statistics import avg_at_k
from openrs.report.evidence import reference
from openrs.report.verdicts.selection import of_paper as selection


def published() -> dict[str, Any]:
    """The published part of report.json."""
    tree = reference.tree()
    return {
        "sources": dict(tree["sources"]),
        "table": [_row(row) for row in tree["table"]],
        "draws": draws(),
        "logs": [
            {
                "experiment": one.experiment,
                "step": one.step,
                "model": one.model,
                "benchmark": one.benchmark,
                "accuracy": one.accuracy,
                "n": one.n,
                "tokens": one.tokens,
                "interval": _interval(one.accuracy, one.n),
            }
            for one in reference.logs()
        ],
        "selection": selection(),
        "costs": [_cost(row) for row in tree["costs"]],
        "arithmetic": arithmetic(),
        "other_gpu": dict(tree["other_gpu"]),
        "tina": [dict(row) for row in tree["tina"]],
        "notes": notes(),
    }


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = [row[benchmark] for benchmark in reference.TABLE_BENCHMARKS]
    mean = sum(cells) / len(cells) if None not in cells else None
    agrees = None if mean is None or row["average"] is None else abs(mean - row["average"]) <= 0.05 + 1e-9
    return {**row, "recomputed": None if mean is None else round(mean, 3), "agrees": agrees}


def _cost(row: Mapping[str, Any]) -> dict[str, Any]:
    priced = row["usd"] is not None and row["hours"] is not None and row["gpus"] is not None
    return {**row, "usd_per_gpu_hour": row["usd"] / row["hours"] / row["gpus"] if priced else None}


def draws() -> list[dict[str, Any]]:
    """The fifteen published draws of Open-RS, each with its interval and with what ten seeds of others gave."""
    found = []
    for one in reference.logs():
        if one.model is None:
            continue
        again = reference.reevaluation(one.model, one.benchmark)
        base = reference.reevaluation(reference.tree()["base"], one.benchmark)
        found.append(
            {
                "model": one.model,
                "benchmark": one.benchmark,
                "published": reference.published(one.model, one.benchmark),
                "accuracy": one.accuracy,
                "n": one.n,
                "k": 1,
                "interval": _interval(one.accuracy, one.n),
                "again": list(again) if again else None,
                "base_again": list(base) if base else None,
            }
        )
    return found


def _interval(accuracy: float, n: int) -> list[float]:
    right = round(accuracy * n)
    interval = avg_at_k([[1]] * right + [[0]] * (n - right)).problems
    return [interval.low, interval.high]


def arithmetic() -> dict[str, Any]:
    """What 500 steps, and the released steps, really are in prompts, completions, hours and dollars."""
    told = reference.tree()["training"]
    group = told["prompts_per_step"] * told["completions_per_prompt"]
    return {
        "steps": told["steps"],
        "prompts": told["steps"] * told["prompts_per_step"],
        "completions": told["steps"] * group,
        "completions_published": 42000,
        "usd_per_gpu_hour": told["usd"] / told["hours"] / told["gpus"],
        "seconds_per_step": 3600 * told["hours"] / told["steps"],
        "released": [
            {
                "model": model,
                "step": row["step"],
                "prompts": row["step"] * told["prompts_per_step"],
                "completions": row["step"] * group,
                "hours": told["hours"] * row["step"] / told["steps"],
                "usd": told["usd"] * row["step"] / told["steps"],
            }
            for model, row in reference.released().items()
        ],
    }


def notes() -> list[str]:
    """What does not fit together in the published figures, in words."""
    sums = arithmetic()
    claimed = f"{sums['completions_published']:,} for 7,000 are published"
    wrong = [row for row in (_row(row) for row in reference.tree()["table"]) if row["agrees"] is False]
    unequal = [
        f"{row['model']}'s average is printed as {row['average']}; its own cells give {row['recomputed']:.2f}."
        for row in wrong
    ]
    return [
        *unequal,
        "Baseline rows are copied from other reports: 16 samples a problem, other harnesses, AMC with 83 problems.",
        "Open-RS rows are one sample a problem, AMC with 40: the table's columns do not measure one thing.",
        "No evaluation of the base in the harness of the Open-RS rows was published.",
        f"{sums['steps']} steps draw {sums['completions']:,} completions for {sums['prompts']:,} prompts; {claimed}.",
        "The released models are steps 50 and 100 of 500: 600 and 1,200 prompts, $4.20 and $8.40 of the $42.",
    ]

"""What the published figures alone say: recomputed averages and prices, intervals, and 46.7 as the best of 21 draws."""

from collections.abc import Mapping, Sequence
from typing import Any

from openrs.evaluation.statistics import avg_at_k
from openrs.hub.pins import baselines
from openrs.report.evidence import reference
from openrs.report.evidence.sources import Measured
from openrs.report.evidence.values import fields_of
from openrs.report.verdicts.selection import of_paper as selection

ROUNDING = 0.1  # of an average of printed cells: cells and average are each rounded to a tenth, half a tenth either way


def published() -> dict[str, Any]:
    """The published part of report.json."""
    tree = reference.tree()
    return {
        "sources": dict(tree["sources"]),
        "table": [_row(row) for row in tree["table"]],
        "draws": draws(),
        "logs": [
            {**fields_of(one, "revision", "hash_cont_tokens"), "model": one.model, "interval": _interval(one)}
            for one in reference.logs()
        ],
        "selection": selection(),
        "costs": [_cost(row) for row in tree["costs"]],
        "arithmetic": reference.arithmetic(),
        "other_gpu": dict(tree["other_gpu"]),
        "tina": [dict(row) for row in tree["tina"]],
        "notes": notes(),
    }


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = [row[benchmark] for benchmark in reference.TABLE_BENCHMARKS]
    mean = sum(cells) / len(cells) if None not in cells else None
    agrees = None if mean is None or row["average"] is None else abs(mean - row["average"]) <= ROUNDING + 1e-9
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
                "interval": _interval(one),
                "again": list(again) if again else None,
                "base_again": list(base) if base else None,
            }
        )
    return found


def _interval(one: reference.Logged) -> list[float]:
    right = round(one.accuracy * one.n)
    interval = avg_at_k([[1]] * right + [[0]] * (one.n - right)).problems
    return [interval.low, interval.high]


def notes() -> list[str]:
    """What does not fit together in the published figures, in words."""
    sums = reference.arithmetic()
    claimed = f"{sums['completions_published']:,} for 7,000 are published"
    rows = map(_row, reference.tree()["table"])
    unequal = [
        f"{row['model']}'s average is printed as {row['average']}; its cells, rounded to a tenth, give"
        f" {row['recomputed']:.2f}{'' if row['agrees'] is False else ', which rounding explains'}."
        for row in rows
        if row["agrees"] is not None and abs(row["recomputed"] - row["average"]) > 0.05 + 1e-9
    ]
    return [
        *unequal,
        "Baseline rows are copied from other reports: 16 samples a problem, other harnesses, AMC with 83 problems.",
        "Open-RS rows are one sample a problem, AMC with 40: the table's columns do not measure one thing.",
        "No evaluation of the base in the harness of the Open-RS rows was published.",
        f"{sums['steps']} steps draw {sums['completions']:,} completions for {sums['prompts']:,} prompts; {claimed}.",
        "The released models are steps 50 and 100 of 500: 600 and 1,200 prompts, $4.20 and $8.40 of the $42.",
    ]


def with_measured(tree: dict[str, Any], measured: Sequence[Measured]) -> dict[str, Any]:
    """The published part with what was measured of each row of the main table beside it: benchmark -> score, n, k, and
    why it is no evidence where it is none (a window below the protocol's). The authors' logs are no measurement."""
    names = {baseline["repository"].lower(): baseline["model"] for baseline in baselines().values()}
    best: dict[tuple[str, str], Measured] = {}
    for result in measured:
        model = result.model or names.get(result.name.partition("@")[0].lower())
        if result.origin in ("released weights", "a results file") and model:
            there = best.get((model, result.benchmark), result)
            best[model, result.benchmark] = min(
                there, result, key=lambda one: (bool(one.excluded_reason), -one.k, one.source)
            )
    rows = [
        {
            **row,
            "measured": {
                benchmark: {"accuracy": own.accuracy, "n": own.n, "k": own.k, "why_not": own.excluded_reason or None}
                for benchmark in reference.TABLE_BENCHMARKS
                if (own := best.get((row["model"], benchmark))) is not None
            },
        }
        for row in tree["table"]
    ]
    return {**tree, "table": rows}

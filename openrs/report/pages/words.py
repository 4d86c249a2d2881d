"""The report in a few sentences: what stands under its title, on the page and in report.md."""

from collections.abc import Iterator
from typing import Any

from openrs.report.evidence import reference
from openrs.report.evidence.values import dollars, duration, p_said, percent, point_span, points, span

TONES = {
    "reproduced": "good",
    "compatible": "warn",
    "cannot tell": "none",
    "smaller than the margin": "warn",
    "not reproduced": "bad",
    "by construction": "none",
    "not tested": "none",
}


def headline(tree: dict[str, Any]) -> list[str]:
    """A few sentences on what was found; the first says the most."""
    if "study" in tree:
        return list(tree["study"]["said"])
    if len(tree["runs"]) == 1:
        return list(_run(tree["runs"][0])) or ["Nothing was measured in this run yet."]
    if tree["runs"]:
        return list(_comparison(tree["comparison"])) or [f"{len(tree['runs'])} runs; nothing measured is in common."]
    if tree["results"]:
        return list(_results(tree["results"]))
    return [
        "Nothing was measured for this report: it weighs the published figures alone.",
        *tree["published"]["selection"]["said"],
    ]


def _run(run: dict[str, Any]) -> Iterator[str]:
    final = run["run"]["final_step"]
    for row in [row for row in run["differences"] if row["step"] == final][:3]:
        name = reference.name(row["benchmark"])
        text = f"{name}: {percent(row['before'])} before, {percent(row['after'])} at step {row['step']}"
        if row["difference"] is not None:
            k = " and ".join(map(str, dict.fromkeys(row["k"])))
            text += f", {points(row['difference'])} points (n = {row['n']}, k = {k}, 95 % interval"
            text += f" {point_span(row['interval'])}, {p_said(row['p_holm'], 'Holm p')})"
        yield f"{text}."
    if not run["differences"]:
        for one in run["evaluations"][:1]:
            for name, score in list(one["benchmarks"].items())[:3]:
                told = f"{one['label']}, {reference.name(name)}: {percent(score['accuracy'])} (avg@{score['k']}"
                yield f"{told}, n = {score['n']}, 95 % interval {span(score['interval'])})."
    cost = run["cost"]
    if cost is not None:
        price = f", {dollars(cost['dollars'])}" if cost["dollars"] is not None else ""
        yield f"{run['training']['steps']} steps recorded, {duration(cost['seconds'])} of wall clock in all{price}."


def _comparison(comparison: dict[str, Any] | None) -> Iterator[str]:
    for group in (comparison or {}).get("seeds", []):
        for row in group["benchmarks"][:3]:
            text = f"{len(group['runs'])} seeds, {reference.name(row['benchmark'])}: {row['verdict']}"
            if row["difference"] is not None:
                text += f", {points(row['difference'])} points (95 % interval {point_span(row['interval'])},"
                text += f" {p_said(row['p'])})"
            yield f"{text}."
    for row in (comparison or {}).get("against_first", [])[:3]:
        if row["difference"] is not None:
            text = (
                f"{row['b']} against {row['a']}, {reference.name(row['benchmark'])}: {points(row['difference'])} points"
            )
            yield f"{text} (95 % interval {point_span(row['interval'])}, {p_said(row['p_holm'], 'Holm p')})."


def _results(results: list[dict[str, Any]]) -> Iterator[str]:
    printed = [row for row in results if row["as_printed"] is not None]
    verified = sum(row["inputs"] == "verified" for row in results)
    yield f"{len(results)} scores read from result files, {verified} of them with verified inputs."
    if printed:
        equal = sum(row["as_printed"] for row in printed)
        yield f"{equal} of {len(printed)} equal the score that the paper prints."
    logs = sum(row["origin"] == "authors' log" for row in results)
    if logs:
        yield f"By the generated tokens {logs} of them are the authors' own logs, which are no new measurement."

"""report.md: the same tree in plain Markdown, for terminals, model cards and pull requests (markdown.txt).

With the report in a few sentences, which stand under its title here and on the page.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from openrs.evaluation.scores import e_notation
from openrs.report.evidence import reference, values
from openrs.report.evidence.values import ABSENT, dollars, duration, p_said, percent, point_span, points, span
from openrs.report.verdicts.claims import NO_EVIDENCE

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown(tree: dict[str, Any]) -> str:
    """The whole report as Markdown; texts of strangers are escaped."""
    from openrs.report.pages.document import TRAINING

    tested = any(claim["verdict"] not in NO_EVIDENCE for claim in tree["claims"])
    page = _environment().get_template("markdown.txt")
    return page.render(r=tree, headline=headline(tree), tested=tested, training_words=TRAINING) + "\n"


@functools.cache
def _environment() -> Environment:
    """Everything put into the report is escaped for Markdown, unless it is a number in words of ours: < 0.001."""

    def finalize(value: Any) -> Markup:
        return value if isinstance(value, Markup) else Markup(escaped(value))  # noqa: S704 - escaped, not for HTML

    made = environment(finalize=finalize)
    made.filters["probability"] = lambda value: Markup(values.probability(value))  # noqa: S704 - a number
    made.filters["dollars"] = lambda value: Markup(values.dollars(value))  # noqa: S704 - a number
    made.globals["e_notation"] = e_notation
    return made


def environment(**options: Any) -> Environment:
    """Templates of the report's pages, with what they show numbers by. What is put in is escaped."""
    made = Environment(
        loader=PackageLoader("openrs.report.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    numbers = ("percent", "points", "span", "point_span", "short", "probability", "duration", "dollars")
    made.filters |= {name: getattr(values, name) for name in numbers}
    made.filters |= {"sampling": sampling, "benchmark": reference.name}
    return made


def escaped(text: Any) -> str:
    """Text in a cell or a line of Markdown: no markup, no HTML, no line break of its own."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def sampling(protocol: dict[str, Any]) -> str:
    """How completions were drawn, in a few words."""
    names = {"temperature": "temperature", "top_p": "top-p", "max_tokens": "cap", "seed": "seed", "engine": ""}
    return (
        ", ".join(f"{word} {protocol[key]}".strip() for key, word in names.items() if protocol.get(key) is not None)
        or ABSENT
    )


# --- in a few sentences -----------------------------------------------------------------------------------------------


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

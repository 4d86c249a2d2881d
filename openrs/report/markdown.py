"""report.md: the same tree in plain Markdown, for terminals, model cards and pull requests."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from openrs.report.document import TRAINING
from openrs.report.values import ABSENT, percent, point_span, points, probability, short, span

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown(tree: dict[str, Any]) -> str:
    """The whole report as Markdown; texts of strangers are escaped."""
    return "\n".join(_lines(tree)) + "\n"


def escaped(text: Any) -> str:
    """Text in a cell or a line of Markdown: no markup, no HTML, no line break of its own."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: int = 1) -> Iterator[str]:
    """A table of cells that are escaped already; columns from number `right` on are set flush right."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "|".join(" --- " if i < right else " ---: " for i in range(len(head))) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _lines(tree: dict[str, Any]) -> Iterator[str]:
    run = tree["run"]
    yield f"# Report on {escaped(run['name'])}"
    yield ""
    yield f"{escaped(run['title'] or 'A run without a readable recipe')}. State: {run['state']}; {run['steps']} steps."
    yield f"Made {tree['made']} by openrs {tree['openrs']}; the numbers are those of report.json."
    yield ""
    if tree["differences"]:
        yield from _differences(tree["differences"])
    if tree["evaluations"]:
        yield from _evaluations(tree["evaluations"])
    if tree["training"]["steps"]:
        yield from _training(tree["training"])
    if tree["missing"]:
        yield "## What is missing"
        yield ""
        yield from (f"- {escaped(note)}" for note in tree["missing"])
        yield ""


def _differences(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Before and after"
    yield ""
    head = ("benchmark", "step", "n", "k", "base %", "after %", "difference", "95 % interval", "p (Holm)", "+", "-")
    yield from table(
        head,
        (
            (
                escaped(row["benchmark"]),
                str(row["step"]),
                str(row["n"]),
                "/".join(map(str, row["k"])),
                percent(row["before"]),
                percent(row["after"]),
                points(row["difference"]),
                point_span(row["interval"]),
                f"{probability(row['p'])} ({probability(row['p_holm'])})",
                str(row["gained"]),
                str(row["lost"]),
            )
            for row in rows
        ),
    )
    yield "Paired by problem, in points; the interval is over problems. + and -: problems solved more, less often."
    differing = {row["settings"] for row in rows} - {"same"}
    yield from (
        f"The two evaluations differ in {escaped(one)}: the difference is not only the model's." for one in differing
    )
    yield ""


def _evaluations(evaluations: list[dict[str, Any]]) -> Iterator[str]:
    yield "## Scores"
    yield ""
    head = ("model", "benchmark", "n", "k", "avg@k %", "95 % interval", "cut off", "mean tokens", "sampling")
    rows = []
    for one in evaluations:
        for name, score in one["benchmarks"].items():
            cut = ABSENT if score["truncated"] is None else str(score["truncated"])
            values = (str(score["n"]), str(score["k"]), percent(score["accuracy"]), span(score["interval"]))
            tail = (cut, short(score["mean_tokens"]), escaped(sampling(one["protocol"])))
            rows.append((escaped(one["label"]), escaped(name), *values, *tail))
    yield from table(head, rows, right=2)


def sampling(protocol: dict[str, Any]) -> str:
    """How completions were drawn, in a few words."""
    named = (("temperature", "T"), ("top_p", "top-p"), ("max_tokens", "cap"), ("seed", "seed"), ("engine", ""))
    return (
        ", ".join(f"{word} {protocol[key]}".strip() for key, word in named if protocol.get(key) is not None) or ABSENT
    )


def _training(training: dict[str, Any]) -> Iterator[str]:
    yield "## Training"
    yield ""
    rows = (
        (escaped(TRAINING.get(name, name)), short(value["first"]), short(value["last"]))
        for name, value in training["metrics"].items()
    )
    window = training["window"]
    yield from table(("", f"first {window} steps", f"last {window} steps"), rows)
    if training["kl_max"]:
        yield f"Greatest mean KL of a step: {short(training['kl_max']['value'])} at step {training['kl_max']['step']}."
        yield ""

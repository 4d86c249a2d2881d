"""report.md: the same tree in plain Markdown, for terminals, model cards and pull requests."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from openrs.evaluation.scores import e_notation
from openrs.report.evidence import reference
from openrs.report.evidence.values import (
    ABSENT,
    dollars,
    duration,
    percent,
    point_span,
    points,
    probability,
    short,
    span,
)
from openrs.report.pages import words
from openrs.report.verdicts.claims import NO_EVIDENCE

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")

DISAGREEMENTS = 20  # of a benchmark that are listed here


def markdown(tree: dict[str, Any]) -> str:
    """The whole report as Markdown; texts of strangers are escaped."""
    return "\n".join(_lines(tree)) + "\n"


def escaped(text: Any) -> str:
    """Text in a cell or a line of Markdown: no markup, no HTML, no line break of its own."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def paragraph(text: str) -> Iterator[str]:
    """A heading or a paragraph, and the empty line after it."""
    yield text
    yield ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: int = 1) -> Iterator[str]:
    """A table of cells that are escaped already; columns from number `right` on are set flush right."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "|".join(" --- " if i < right else " ---: " for i in range(len(head))) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _lines(tree: dict[str, Any]) -> Iterator[str]:
    yield from paragraph(f"# Report on {escaped(tree['title'])}")
    yield from (escaped(sentence) for sentence in words.headline(tree))
    yield ""
    paper = tree["focus"] == "paper"
    if paper:
        yield from _levels(tree["levels"])
    if "study" in tree:
        yield from _study(tree["study"])
    tested = any(claim["verdict"] not in NO_EVIDENCE for claim in tree["claims"])
    if tested and paper:
        yield from _claims(tree)
    if tree["comparison"]:
        yield from _comparison(tree["comparison"])
    for one in tree["runs"]:
        yield from _run(one, several=len(tree["runs"]) > 1, paper=paper)
    if tree["results"]:
        yield from _results(tree["results"])
    if paper and not tested:
        yield from _claims(tree)
    if paper:
        yield from _published(tree["published"])
    if tree["missing"]:
        yield from paragraph("## What is missing")
        yield from (f"- {escaped(note)}" for note in tree["missing"])
        yield ""
    yield f"Made {tree['made']} by openrs {tree['openrs']}; the numbers are those of report.json."


def _study(study: dict[str, Any]) -> Iterator[str]:
    yield from paragraph("## The study")
    if study["changed_after_looking"]:
        lines = [line for change in study["changes"] if change["looked"] for line in change["changes"]]
        yield from paragraph(f"**Changed after looking:** {escaped('; '.join(lines))}")
    if study["open"]:
        rows = (
            (
                escaped(one["id"]),
                one["verdict"],
                ", ".join(map(str, one["looks"])) or ABSENT,
                f"{one['dollars']['expected']:.2f}" if one["dollars"] else ABSENT,
                escaped(", ".join(one["needs"])) or "nothing more can be bought",
            )
            for one in study["open"]
        )
        yield from table(("open claim", "verdict so far", "looks", "dollars", "what it needs"), rows, right=5)
    if study["jobs"]:
        jobs = (
            (
                escaped(one["id"]),
                one["state"],
                _span(one["planned_hours"]),
                f"{one['hours']:.2f}",
                ABSENT if one["ledger_hours"] is None else f"{one['ledger_hours']:.2f}",
                _span(one["planned_dollars"]),
                ABSENT if one["dollars"] is None else f"{one['dollars']:.2f}",
            )
            for one in study["jobs"]
        )
        head = ("job", "state", "hours, planned", "spent", "by its run's ledger", "dollars, planned", "spent")
        yield from table(head, jobs, right=2)
    yield from paragraph(escaped(study["estimand"]))


def _span(planned: dict[str, float] | None) -> str:
    return f"{planned['low']:.2f} to {planned['high']:.2f}" if planned else ABSENT


def _levels(levels: list[dict[str, Any]]) -> Iterator[str]:
    rows = ((f"{one['level']} {one['title']}", escaped(one["state"]), escaped(one["said"])) for one in levels)
    yield from table(("level of reproduction", "state", "why"), rows, right=3)


def _claims(tree: dict[str, Any]) -> Iterator[str]:
    yield from paragraph("## The paper's claims")
    yield from paragraph(", ".join(f"{count} {word}" for word, count in tree["verdicts"].items() if count) + ".")
    for question, kinds in tree["questions"].items():
        rows = (
            (_claimed(c), c["evidence_level"] or c["level"], f"**{c['verdict']}**", escaped(c["said"]))
            for c in tree["claims"]
            if c["kind"] in kinds
        )
        yield from paragraph(f"### {question}")
        yield from table(("claim", "level", "verdict", "evidence"), rows, right=4)


def _claimed(claim: dict[str, Any]) -> str:
    """A claim, what it can be at most, and what it is made of."""
    said = claim["text"]
    said += f". At most {claim['at_most']}: {claim['limit']}" if claim["limit"] else ""
    return escaped(said + (f". Follows from {claim['follows_from']}" if "follows_from" in claim else ""))


def _run(one: dict[str, Any], *, several: bool, paper: bool) -> Iterator[str]:
    run = one["run"]
    if several:
        yield from paragraph(f"## Run {escaped(run['name'])}")
    told = [f"State: {run['state']}", f"{run['steps']} steps"]
    told += [f"rewards {escaped(run['rewards_mode'])}"] if run["rewards_mode"] else []
    yield from paragraph(f"{escaped(run['title'])}. " * bool(run["title"]) + ", ".join(told) + ".")
    if one["differences"]:
        yield from _differences(one["differences"])
    if one["changes"]:
        yield from _changes(one["changes"])
    if one["selection"]:
        yield from paragraph(escaped(one["selection"]["said"]))
    if one["evaluations"]:
        yield from _evaluations(one["evaluations"])
    if one["training"]["steps"]:
        yield from _training(one["training"])
    if one["cost"]:
        yield from _cost(one["cost"], paper=paper)


def _difference_cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(row["n"]),
        "/".join(map(str, dict.fromkeys(row["k"]))),
        percent(row["before"]),
        percent(row["after"]),
        points(row["difference"]),
        point_span(row["interval"]),
        f"{probability(row['p'])} ({probability(row['p_holm'])})",
    )


def _differences(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield from paragraph("## Before and after")
    head = ("benchmark", "step", "n", "k", "base %", "after %", "difference", "95 % interval", "p (Holm)", "+", "-")
    yield from table(
        head,
        (
            (
                escaped(reference.name(row["benchmark"])),
                str(row["step"]),
                *_difference_cells(row),
                str(row["gained"]),
                str(row["lost"]),
            )
            for row in rows
        ),
    )
    yield "Paired by problem, in points; the interval is over problems. + and -: problems solved more, less often."
    yield "p (Holm): corrected over all rows of this table, checkpoints and benchmarks."
    differing = {row["settings"] for row in rows} - {"same"}
    for settings in sorted(differing):
        yield f"The two evaluations differ in {escaped(settings)}: the difference is not only the model's."
    yield ""


def _changes(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield from paragraph("Problems lost and won, the largest changes (the page has both completions):")
    yield from table(
        ("", "benchmark", "problem", "right before, %", "right after, %", "answer before", "answer after"),
        (
            (
                "won" if row["after"] > row["before"] else "lost",
                escaped(reference.name(row["benchmark"])),
                escaped(row["problem"]),
                percent(row["before"]),
                percent(row["after"]),
                *(escaped(answer or ABSENT) for answer in row["answers"]),
            )
            for row in rows
        ),
        right=3,
    )


def _evaluations(evaluations: list[dict[str, Any]]) -> Iterator[str]:
    yield from paragraph("## Scores")
    head = ("model", "benchmark", "n", "k", "avg@k %", "95 % interval", "cut off", "mean tokens", "inputs", "sampling")
    rows = []
    for one in evaluations:
        for name, score in one["benchmarks"].items():
            cut = ABSENT if score["truncated"] is None else str(score["truncated"])
            values = (str(score["n"]), str(score["k"]), percent(score["accuracy"]), span(score["interval"]))
            tail = (cut, short(score["mean_tokens"]), score["inputs"], escaped(sampling(one["protocol"])))
            rows.append((escaped(one["label"]), escaped(reference.name(name)), *values, *tail))
    yield from table(head, rows, right=2)
    departures = [f"- {escaped(one['label'])}: {escaped(line)}" for one in evaluations for line in one["departures"]]
    if departures:
        yield from ("Departures from the protocol:", "", *departures, "")
    yield from _second_opinions(evaluations)


def _second_opinions(evaluations: list[dict[str, Any]]) -> Iterator[str]:
    """Both judges side by side, and the samples on which they differ."""
    scored = [(one, name, score) for one in evaluations for name, score in one["benchmarks"].items()]
    judged = [(one, name, score) for one, name, score in scored if score["strict"]]
    if not judged:
        return
    yield from paragraph(
        "Two judges on the same samples. lighteval's verdict is the score; the strict one is a second opinion."
    )
    head = ("model", "benchmark", "lighteval %", "strict %", "disagree", "only lighteval", "only strict", "misread")
    rows = [
        (
            escaped(one["label"]), escaped(reference.name(name)), percent(score["accuracy"]),
            percent(score["strict"]["accuracy"]),
            *(str(score["strict"][key]) for key in ("disagree", "only_lighteval", "only_strict")),
            e_notation(score["e_notation"], score["n"]) if score["e_notation"] else ABSENT,
        )
        for one, name, score in judged
    ]  # fmt: skip
    yield from table(head, rows, right=2)
    for one, name, score in judged:
        listed = score["strict"]["rows"][:DISAGREEMENTS]
        for problem, sample, verdict, strict in listed:
            said = f"lighteval {verdict}, strict {strict}"
            yield f"- {escaped(one['label'])}, {escaped(problem)}, sample {sample}: {escaped(said)}"
        if score["strict"]["disagree"] > len(listed):
            more = score["strict"]["disagree"] - len(listed)
            yield f"- {escaped(reference.name(name))}: {more} more in scores.json"
    yield ""


def sampling(protocol: dict[str, Any]) -> str:
    """How completions were drawn, in a few words."""
    names = {"temperature": "temperature", "top_p": "top-p", "max_tokens": "cap", "seed": "seed", "engine": ""}
    return (
        ", ".join(f"{word} {protocol[key]}".strip() for key, word in names.items() if protocol.get(key) is not None)
        or ABSENT
    )


def _training(training: dict[str, Any]) -> Iterator[str]:
    from openrs.report.pages.document import TRAINING

    yield from paragraph("## Training")
    rows = (
        (escaped(TRAINING.get(name, name)), short(value["first"]), short(value["last"]))
        for name, value in training["metrics"].items()
    )
    window = training["window"]
    yield from table(("mean of", f"first {window} steps", f"last {window} steps"), rows)
    if training["kl_max"]:
        yield from paragraph(
            f"Greatest mean KL of a step: {short(training['kl_max']['value'])} at step {training['kl_max']['step']}."
        )


def _cost(cost: dict[str, Any], *, paper: bool) -> Iterator[str]:
    yield from paragraph("## Cost")
    priced = cost["dollars"] is not None
    rows = [
        (escaped(one["phase"]), duration(one["seconds"]), duration(one["gpu_seconds"]), dollars(one["dollars"]))
        for one in cost["phases"]
    ]
    rows.append(("**all**", duration(cost["seconds"]), duration(cost["gpu_seconds"]), dollars(cost["dollars"])))
    yield from table(("phase", "wall clock", "GPU time", "dollars"), rows)
    if priced:
        told = f"{dollars(cost['training_dollars'])} of training, {dollars(cost['dollars_per_step'])} a step"
        told += f", {dollars(cost['dollars_per_point'])} a point gained" * (cost["dollars_per_point"] is not None)
        beside = " The paper: $42 for 500 steps." if paper else ""
        price = f"{dollars(cost['price_per_gpu_hour'])} per GPU-hour ({escaped(cost['price_from'])})"
        yield from paragraph(f"{cost['gpus']} x {escaped(cost['gpu'] or 'GPU')} at {price}: {told}.{beside}")


def _comparison(comparison: dict[str, Any]) -> Iterator[str]:
    yield from paragraph("## Side by side")
    if comparison["against_first"]:
        head = (
            "first",
            "other",
            "benchmark",
            "n",
            "k",
            "first %",
            "other %",
            "difference",
            "95 % interval",
            "p (Holm)",
        )
        rows = (
            (escaped(r["a"]), escaped(r["b"]), escaped(reference.name(r["benchmark"])), *_difference_cells(r))
            for r in comparison["against_first"]
        )
        yield from table(head, rows, right=3)
    for group in comparison["seeds"]:
        names = [escaped(name) for name in group["runs"]]
        seeds = (
            (
                escaped(reference.name(row["benchmark"])),
                *(f"{percent(s['before'])} to {percent(s['after'])}" for s in row["by_seed"]),
                points(row["difference"]),
                point_span(row["interval"]),
                probability(row["p"]),
                row["verdict"],
            )
            for row in group["benchmarks"]
        )
        yield from paragraph(
            f"{len(group['runs'])} seeds of one recipe, base to final checkpoint (over seeds, p one-sided):"
        )
        yield from table(["benchmark", *names, "mean", "95 % interval", "p", "verdict"], seeds)


def _results(results: list[dict[str, Any]]) -> Iterator[str]:
    yield from paragraph("## Result files")
    names = ("model", "checkpoint", "benchmark", "metric", "n", "k", "score %", "stderr", "printed %")
    head = (*names, "inputs", "counts", "file")
    rows = (
        (
            escaped(row["model"] or row["name"]),
            f"{row['experiment']}, step {row['step']}" if row["experiment"] else ABSENT,
            escaped(reference.name(row["benchmark"])),
            escaped(row["metric"]),
            str(row["n"]),
            str(row["k"]),
            percent(row["accuracy"]),
            percent(row["stderr"]),
            ABSENT if row["published"] is None else str(row["published"]),
            row["inputs"],
            "yes" if row["counts"] else escaped(row["why_not"]),
            escaped(row["source"]),
        )
        for row in results
    )
    yield from table(head, rows, right=4)


def _published(published: dict[str, Any]) -> Iterator[str]:
    yield from paragraph("## The published figures, weighed")
    yield from paragraph(" ".join(map(escaped, published["selection"]["said"])))
    yield from paragraph(escaped(published["selection"]["note"]))
    head = ("model", "benchmark", "n", "k", "printed %", "95 % interval", "others' seeds, mean and sd %")
    rows = (
        (
            row["model"],
            reference.name(row["benchmark"]),
            str(row["n"]),
            str(row["k"]),
            percent(row["published"]),
            span(row["interval"]),
            f"{percent(row['again'][0])} +- {percent(row['again'][1])} ({row['again'][2]})" if row["again"] else ABSENT,
        )
        for row in published["draws"]
    )
    yield from table(head, rows, right=2)
    if any(row["measured"] for row in published["table"]):
        yield from _measured(published["table"])
    yield from (f"- {escaped(note)}" for note in published["notes"])
    yield ""


def _measured(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The main table's scores as printed, and measured here, a line each."""
    lines = (
        (
            row["model"],
            reference.name(benchmark),
            ABSENT if row[benchmark] is None else str(row[benchmark]),
            f"{percent(one['accuracy'])} (k = {one['k']})" + (f"; {escaped(one['why_not'])}" if one["why_not"] else ""),
        )
        for row in rows
        for benchmark, one in row["measured"].items()
    )
    yield from table(("model", "benchmark", "as printed", "measured here"), lines, right=2)

"""Plots of scores: benchmarks with intervals and published draws, a benchmark over checkpoints, length, cost, runs."""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.ticker import NullFormatter

from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData
from openrs.report.evidence.evaluations import Evaluated
from openrs.report.evidence.sources import whose
from openrs.report.evidence.values import percent, short, span, spread
from openrs.report.pages.figures import (
    INK,
    LINE,
    PAPER,
    SERIES,
    SOFT,
    Plot,
    draw,
    legend,
    running_mean,
    step_axes,
    thinned,
)
from openrs.report.pages.published import draws
from openrs.report.verdicts.selection import of_paper

ROWS = 10  # evaluations in a benchmark's plot
OWN, PRINTED, AGAIN = "measured here", "published draw", "mean and sd of others' seeds"


def benchmarks(runs: Sequence[RunData]) -> list[Plot]:
    """One plot a benchmark: each evaluation's score with its 95 % interval, and what was published of that model."""
    entries = [(run, one) for run in runs for one in run.evaluations]
    names = list(dict.fromkeys(name for _, one in entries for name in one.scores))
    return [_benchmark(name, [(run, one) for run, one in entries if name in one.scores], runs) for name in names]


def _benchmark(name: str, entries: Sequence[tuple[RunData, Evaluated]], runs: Sequence[RunData]) -> Plot:
    kept = spread(entries, ROWS)
    many = len(runs) > 1
    rows = []
    for run, one in kept:
        score = one.scores[name]
        label = f"{run.name}, {one.label}" if many else one.label
        rows.append((label, score.accuracy, score.interval, whose(run, one)[0], f"n={score.n} k={score.k}"))

    def paint(axes: Any) -> None:
        places = list(range(len(rows)))[::-1]
        axes.barh(places, [100 * row[1] for row in rows], height=0.55, color=SERIES[0], alpha=0.28, linewidth=0)
        for place, (_, value, interval, model, _) in zip(places, rows, strict=True):
            if interval:
                axes.plot([100 * end for end in interval], [place, place], color=SERIES[0], linewidth=1.6)
            axes.plot([100 * value], [place], "o", color=SERIES[0], markersize=4.5)
            axes.text(103, place, f"{percent(value)} %", va="center", fontweight="bold")
            _published_marks(axes, place, model, name)
        _rows_axes(axes, [row[0] for row in rows])

    told = [f"{row[0]}: {percent(row[1])} ({span(row[2])}, {row[4]})" for row in rows]
    left = f"{len(kept)} of {len(entries)} evaluations shown" if len(kept) < len(entries) else ""
    any_published = any(reference.published(row[3], name) is not None for row in rows)
    words = ((1, OWN), (2, PRINTED), (6, AGAIN)) if any_published else ()
    height = 0.7 + 0.32 * max(2, len(rows))
    return Plot(reference.name(name), draw(height, paint), f"In percent. {'; '.join(told)}.", left, words)


@functools.cache
def published_benchmarks() -> Sequence[Plot]:
    """The published draws of the base and Open-RS1 ... 3 with their intervals, beside the re-evaluation."""
    every = draws()
    base = str(reference.tree()["base"])
    plots = []
    for name in reference.TABLE_BENCHMARKS:
        rows = [(row["model"], row) for row in every if row["benchmark"] == name]

        def paint(axes: Any, name: str = name, rows: list[tuple[str, Any]] = rows) -> None:
            labels = ["base", *(model for model, _ in rows)]
            for place, (_, row) in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
                axes.plot([100 * end for end in row["interval"]], [place, place], color=SERIES[1], linewidth=1.2)
                _published_marks(axes, place, row["model"], name)
            _published_marks(axes, len(rows), base, name)
            _rows_axes(axes, labels, whole=False)

        told = [f"{model}: {row['published'] * 100:.1f}, {span(row['interval'])}" for model, row in rows]
        alt = f"Published, in percent, with 95 % intervals of one draw. {'; '.join(told)}."
        words = ((2, f"{PRINTED}, 95 % interval"), (6, AGAIN))
        plots.append(Plot(reference.name(name), draw(2.1, paint), alt, legend=words))
    return plots


def _published_marks(axes: Any, place: float, model: str | None, benchmark: str) -> None:
    printed, again = reference.published(model, benchmark), reference.reevaluation(model, benchmark)
    if again:
        mean, deviation, _ = again
        ends = [100 * (mean - deviation), 100 * (mean + deviation)]
        axes.plot(ends, [place - 0.27] * 2, color=SERIES[5], linewidth=1)
        axes.plot([100 * mean], [place - 0.27], "|", color=SERIES[5], markersize=6, markeredgewidth=1.4)
    if printed is not None:
        axes.plot([100 * printed], [place], "D", color=PAPER, markeredgecolor=SERIES[1], markersize=5, zorder=5)


def _rows_axes(axes: Any, labels: Sequence[str], *, whole: bool = True) -> None:
    """Rows from above to below, percent from left to right: all of 0 to 100 under bars, what is used under dots."""
    axes.set_yticks(range(len(labels)), [_cut(label) for label in labels[::-1]])
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.set_xlabel("percent right, with 95 % interval")
    if whole:
        axes.set_xlim(0, 100)
        axes.set_xticks([0, 20, 40, 60, 80, 100])
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)


def _cut(label: str, longest: int = 18) -> str:
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


# --- over checkpoints -------------------------------------------------------------------------------------------------


def checkpoints(run: RunData, selection: dict[str, Any] | None, *, named: bool) -> Plot | None:
    """A run's checkpoints on one benchmark: intervals, the released step, the paper's, the best expected by chance."""
    if selection is None:
        return None
    name = selection["benchmark"]
    own = [
        (one.step or 0, one.scores[name]) for one in [run.base, *run.later] if one is not None and name in one.scores
    ]
    printed = [one for one in reference.logs() if one.experiment == run.experiment and one.benchmark == name]
    marked = run.final.step if run.final else None

    def paint(axes: Any) -> None:
        _checkpoint_axes(axes, selection)
        axes.axhline(100 * selection["expected_best"], color=SERIES[3], linewidth=1.3, linestyle=(0, (4, 2)))
        for step, score in own:
            if score.interval:
                axes.plot([step, step], [100 * end for end in score.interval], color=SERIES[0], linewidth=1, alpha=0.6)
        axes.plot([step for step, _ in own], [100 * score.accuracy for _, score in own], "o-", color=SERIES[0])
        if printed:
            ys = [100 * one.accuracy for one in printed]
            axes.plot([one.step for one in printed], ys, "D", color=PAPER, markeredgecolor=SERIES[1], markersize=5)
        if marked is not None:
            axes.axvline(marked, color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)))

    told = "; ".join(f"step {step}: {percent(score.accuracy)}" for step, score in own)
    words = [(1, f"measured here (n={selection['n']}, k={selection['k']})"), (4, "best expected by chance alone")]
    words += [(2, "published draws")] if printed else []
    note = f"dotted: step {marked}, fixed before training" if marked is not None else ""
    title = f"{reference.name(name)} over checkpoints{f' of {run.name}' if named else ''}"
    return Plot(title, draw(2.7, paint), f"{title}, in percent: {told}.", note, tuple(words))


@functools.cache
def published_checkpoints() -> Plot:
    """AIME24 of the paper's 21 checkpoints, the released ones marked, and the best expected of an unchanged base."""
    selection = of_paper()
    every = [one for one in reference.logs() if one.benchmark == selection["benchmark"]]
    experiments = list(dict.fromkeys(one.experiment for one in every))

    def paint(axes: Any) -> None:
        _checkpoint_axes(axes, selection)
        low, high = (100 * (selection["rate"] + sign * selection["rate_deviation"]) for sign in (-1, 1))
        axes.axhspan(low, high, color=SERIES[5], alpha=0.16, linewidth=0)
        expected = [100 * one["expected_best"] for one in selection["estimates"]]
        axes.axhspan(min(expected), max(expected), color=SERIES[3], alpha=0.28, linewidth=0)
        axes.axhline(100 * selection["bound"]["expected_best"], color=SERIES[3], linewidth=1, linestyle=(0, (4, 2)))
        for colour, experiment in zip(SERIES, experiments, strict=False):
            mine = [one for one in every if one.experiment == experiment]
            axes.plot(
                [one.step for one in mine], [100 * one.accuracy for one in mine], "-", color=colour, linewidth=0.7
            )
            for one in mine:
                face = colour if one.model else PAPER
                axes.plot([one.step], [100 * one.accuracy], "D", color=face, markeredgecolor=colour, markersize=5)

    told = "; ".join(f"{one.experiment} step {one.step}: {percent(one.accuracy)}" for one in every)
    words = [*((i, experiment) for i, experiment in enumerate(experiments, 1)), (4, "best of 21 equals of the base")]
    note = (
        "filled: the released checkpoints; grey band: the base, ten seeds, mean and standard deviation; coloured band:"
        " where the best of 21 would be expected were all equal to the base; dashed: at most"
    )
    title = "AIME24, one draw for each of 21 checkpoints"
    return Plot(title, draw(2.9, paint), f"{title}, in percent: {told}.", note, tuple(words))


def _checkpoint_axes(axes: Any, selection: dict[str, Any]) -> None:
    step_axes(axes, "%")
    axes.axhline(100 * selection["rate"], color=SERIES[5], linewidth=1)
    axes.margins(x=0.04, y=0.12)


# --- length, cost, runs -----------------------------------------------------------------------------------------------


def accuracy_against_length(runs: Sequence[RunData]) -> Plot | None:
    """Accuracy against mean length of the completions, evaluation by evaluation; a line joins a run's checkpoints."""
    lines: list[tuple[str, list[tuple[float, float, str]]]] = []
    for run in runs:
        names = dict.fromkeys(name for one in run.evaluations for name in one.scores)
        for name in names:
            scores = [(one.label, one.scores[name]) for one in run.evaluations if name in one.scores]
            dots = [(s.mean_tokens, 100 * s.accuracy, label) for label, s in scores if s.mean_tokens is not None]
            label = f"{run.name}, {reference.name(name)}" if len(runs) > 1 else reference.name(name)
            lines += [(label, dots)] if len(dots) > 1 else []
    return _scatter("Accuracy against length", lines[: len(SERIES)], "mean tokens of a completion") if lines else None


@functools.cache
def published_length() -> Plot:
    """MATH-500 of the paper's checkpoints against their mean length, experiment by experiment."""
    lines: list[tuple[str, list[tuple[float, float, str]]]] = []
    every = [one for one in reference.logs() if one.benchmark == "math_500" and one.tokens is not None]
    for experiment in dict.fromkeys(one.experiment for one in every):
        mine = [one for one in every if one.experiment == experiment]
        lines.append((experiment, [(one.tokens or 0.0, 100 * one.accuracy, f"step {one.step}") for one in mine]))
    return _scatter("MATH-500 against length, published", lines, "mean tokens of a completion", named=False)


def _scatter(
    title: str, lines: Sequence[tuple[str, list[tuple[float, float, str]]]], words: str, *, named: bool = True
) -> Plot:
    def paint(axes: Any) -> None:
        axes.set_xlabel(words)
        axes.set_ylabel("%")
        for colour, (_, dots) in zip(SERIES, lines, strict=False):
            xs, ys = [dot[0] for dot in dots], [dot[1] for dot in dots]
            axes.plot(xs, ys, "-", color=colour, linewidth=0.6, alpha=0.5)
            axes.plot(xs, ys, "o", color=colour, markersize=4)
            for (x, y, label), down in ((dots[0], -11), (dots[-1], 5)) if named else ():
                _beside(axes, label, (x, y), (3, down))
        axes.margins(x=0.12, y=0.12)

    told = "; ".join(
        f"{name}: {', '.join(f'{d[2]} {short(d[0])} tokens {d[1]:.1f} %' for d in dots)}" for name, dots in lines
    )
    return Plot(title, draw(2.7, paint), f"{told}.", legend=tuple(enumerate((name for name, _ in lines), 1)))


def _beside(axes: Any, label: str, place: tuple[float, float], away: tuple[int, int]) -> None:
    """Words beside a point, so many units away from it: to its left where that is below 0."""
    side = "right" if away[0] < 0 else "left"
    axes.annotate(label, place, xytext=away, textcoords="offset points", ha=side, color=SOFT, fontsize=7.5)


def cost_against_score(own: Iterable[tuple[str, float, float]]) -> Plot:
    """Dollars of training against the mean of five benchmarks: the paper's table, and own (name, dollars, mean)."""
    table = {row["model"]: row["average"] for row in reference.tree()["table"]}
    costs = [(row["model"], row["usd"]) for row in reference.tree()["costs"] if row["usd"]]
    best = max(row["average"] for row in reference.tree()["table"] if row["group"] == "ours")
    dots = [(name, usd, table.get(name, best)) for name, usd in costs]
    mine = list(own)

    def paint(axes: Any) -> None:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"${value:,.0f}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("dollars of training")
        axes.set_ylabel("average, %")
        for colour, group in ((SERIES[1], dots), (SERIES[0], mine)):
            for name, usd, average in group:
                axes.plot([usd], [average], "D" if colour == SERIES[1] else "o", color=colour, markersize=5)
                _beside(axes, _cut(name, 26), (usd, average), (-6 if usd > 500 else 6, 5))
        axes.margins(x=0.15, y=0.15)
        axes.grid(visible=True, color=LINE)

    told = "; ".join(f"{name}: {usd:,.0f} dollars, {average}" for name, usd, average in [*dots, *mine])
    words = ((2, "as published"), *([(1, "measured here")] if mine else []))
    note = "published averages mix harnesses; see the notes below"
    return Plot("Cost against score", draw(2.7, paint), f"{told}.", note, tuple(words))


DASHES: Sequence[Any] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 3)), (0, (8, 2)))


def overlay(runs: Sequence[RunData]) -> list[Plot]:
    """Running means of several runs over each other, a plot for each metric that is not 0 throughout."""
    wanted = (
        ("reward", "Reward", "weighted sum"),
        ("accuracy", "Accuracy of the completions", "share"),
        ("completions/mean_length", "Mean length", "tokens"),
        ("completions/clipped_ratio", "Cut off at the cap", "share"),
        ("kl", "KL from the starting model", "nats per token"),
        ("entropy", "Entropy", "nats per token"),
        ("frac_reward_zero_std", "Groups without a signal", "share"),
        ("grad_norm", "Gradient norm", ""),
        ("time/step", "Seconds of a step", "seconds"),
    )
    plots = []
    for name, title, unit in wanted:
        every = [run for run in runs if run.metrics.has(name)]
        having = every[: len(SERIES)]
        if not any(value and not math.isnan(value) for run in having for value in run.metrics.columns[name]):
            continue

        def paint(axes: Any, name: str = name, unit: str = unit, having: list[RunData] = having) -> None:
            step_axes(axes, unit)
            for colour, dashes, run in zip(SERIES, DASHES, having, strict=False):
                xs, ys = thinned(run.metrics.steps, run.metrics.columns[name])
                axes.plot(xs, running_mean(ys, max(1, len(ys) // 25)), color=colour, linestyle=dashes, linewidth=1.5)

        words = legend([run.name for run in having])
        ends = [(run.name, [y for y in run.metrics.columns[name] if not math.isnan(y)]) for run in having]
        alt = f"{title}: {'; '.join(f'{run} from {short(ys[0])} to {short(ys[-1])} {unit}' for run, ys in ends)}."
        left = f"the first {len(having)} of {len(every)} runs" if len(having) < len(every) else ""
        plots.append(Plot(title, draw(2.3, paint), alt, left, legend=words))
    return plots


def frontier(points: Sequence[tuple[float, int, float, float]], spent: float, total: int) -> Plot:
    """Dollars against claims decided. points: dollars, claims that can be decided, that are expected to be if the paper
    is right, and if the re-evaluations are. spent: dollars of what is planned; beyond it lies what a budget leaves out.
    """
    xs = [point[0] for point in points]

    def paint(axes: Any) -> None:
        for colour, place in ((SERIES[5], 1), (SERIES[1], 2), (SERIES[0], 3)):
            ys = [point[place] for point in points]
            axes.step(xs, ys, where="post", color=colour, linewidth=1.5 if place > 1 else 1)
            axes.plot(xs, ys, "o", color=colour, markersize=3.5)
        if spent < xs[-1]:
            axes.axvline(spent, color=SOFT, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_xlabel("dollars")
        axes.xaxis.set_major_formatter(lambda value, _: f"${value:,.0f}")
        axes.set_ylabel("claims")
        axes.set_ylim(0, total + 0.5)
        axes.set_xlim(left=0)

    steps = "; ".join(f"${x:,.2f}: {count} claims" for x, count, _, _ in points)
    words = ((6, "can be decided"), (2, "expected, paper right"), (1, "expected, re-evaluations right"))
    note = "dotted: what the budget pays for" if spent < xs[-1] else ""
    return Plot("Dollars against claims decided", draw(2.9, paint), f"{steps}.", note, words)

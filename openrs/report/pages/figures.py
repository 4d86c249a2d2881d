"""Plots as SVG inside the page: small panels that stay readable on a phone, coloured by the page's own variables."""

import io
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from openrs.report.evidence.collect import Metrics
from openrs.report.evidence.values import short, text

# Colours that matplotlib draws with, and the variables of style.css that the page puts in their place (dark and light).
INK, SOFT, LINE, PAPER = "#010101", "#010102", "#010103", "#010104"
SERIES = ("#020201", "#020202", "#020203", "#020204", "#020205", "#020206")
VARIABLES = {INK: "--ink", SOFT: "--soft", LINE: "--line", PAPER: "--paper"} | {
    colour: f"--series-{i}" for i, colour in enumerate(SERIES, 1)
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "text.parse_math": False,  # names come from recipes: a $ in one is a $
    "font.size": 8.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.color": LINE,
    "ytick.labelcolor": SOFT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "svg.hashsalt": "openrs",  # the same numbers give the same file
}
WIDTH = 3.6  # inches: in a column of 340 pixels the 8.5 units of text are 11 pixels
POINTS = 400  # a curve shows at most so many points; longer ones are means over equal stretches of steps


@dataclass(frozen=True, slots=True)
class Plot:
    """An SVG for the page.

    title: above it. alt: the same in words. note: what was left out or averaged. legend: number of the series -> word.
    """

    title: str
    svg: str
    alt: str
    note: str = ""
    legend: tuple[tuple[int, str], ...] = ()


def draw(height: float, paint: Any) -> str:
    """Make a figure of so many inches (72 units each), let `paint(axes)` fill it, return its SVG element."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.set_axisbelow(True)
        paint(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_page(out.getvalue())


def _for_page(svg: str) -> str:
    """Only the svg element, sized by the page, with ids of its own and the page's colours and font."""
    own = f"p{zlib.crc32(svg.encode()):08x}-"  # ids must differ between the plots of a page
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"([^>]*)>', r'<svg class="plot" aria-hidden="true" \1\2>', svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{own}\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{own}", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


# --- curves of the training -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of the training: metrics.jsonl's names with their words; `floor` keeps 0 in sight."""

    title: str
    names: tuple[tuple[str, str], ...]
    unit: str = ""
    floor: bool = False


def panels(metrics: Metrics) -> list[Panel]:
    """The plots that the recorded metrics allow."""
    components = [
        (name, text(name.split("/")[1], 24))
        for name in sorted(metrics.columns)
        if name.startswith("rewards/") and name.endswith("/mean")
    ]
    lengths = (("completions/mean_length", "mean"), ("completions/max_length", "longest"))
    faults = (
        ("judge/unparseable_share", "gold can't be read"),
        ("judge/wraps_share", "beyond twice the cosine's length"),
    )
    wanted = [
        Panel("Reward", (("reward", "weighted sum"), *components)),
        Panel("Accuracy of the completions", (("accuracy", "correct, says the judge"),), "share", floor=True),
        Panel("Length", lengths, "tokens", floor=True),
        Panel("Cut off at the cap", (("completions/clipped_ratio", "completions"),), "share", floor=True),
        Panel("KL from the starting model, mean", (("kl", "mean"),), "nats per token"),
        Panel("KL, largest of one token", (("kl/max", "largest"),), "nats"),
        Panel("Groups without a signal", (("frac_reward_zero_std", "zero spread of reward"),), "share", floor=True),
        Panel("Entropy", (("entropy", "mean"),), "nats per token", floor=True),
        Panel("Gradient norm", (("grad_norm", "before clipping"),), floor=True),
        Panel("Letters of other scripts", (("completions/non_latin", "outside LaTeX"),), "share", floor=True),
        Panel("The judge's faults", faults, "share", floor=True),
        Panel("vLLM against the trainer", (("canary/gap", "mean gap of log-probabilities"),), "nats", floor=True),
    ]
    return [panel for panel in wanted if any(metrics.has(name) for name, _ in panel.names)]


def zeros(metrics: Metrics) -> list[str]:
    """Titles of the panels whose values are all zero: they are told of in a line, not drawn."""
    return [panel.title for panel in panels(metrics) if _all_zero(metrics, panel)]


def _all_zero(metrics: Metrics, panel: Panel) -> bool:
    return all(value == 0 or math.isnan(value) for name, _ in panel.names for value in metrics.columns.get(name, ()))


def curves(metrics: Metrics) -> list[Plot]:
    """A plot for each panel, then where the seconds of a step went."""
    plots = [_curve(metrics, panel) for panel in panels(metrics) if not _all_zero(metrics, panel)]
    parts = [(f"time/{name}", name) for name in ("generation", "reward", "sync", "update")]
    parts = [(name, word) for name, word in parts if metrics.has(name)]
    return [*plots, _time_split(metrics, parts)] if parts else plots


def _curve(metrics: Metrics, panel: Panel) -> Plot:
    lines = [(name, word) for name, word in panel.names if metrics.has(name)]
    stretch = math.ceil(len(metrics.steps) / POINTS)
    told = []

    def paint(axes: Any) -> None:
        step_axes(axes, panel.unit)
        for colour, (name, word) in zip(SERIES * 3, lines, strict=False):
            xs, ys = thinned(metrics.steps, metrics.columns[name])
            smooth = running_mean(ys, max(1, len(ys) // 25))
            if len(ys) > 50:
                axes.plot(xs, ys, color=colour, linewidth=0.7, alpha=0.3)
            axes.plot(xs, smooth, color=colour, linewidth=1.6, marker="o" if len(xs) < 2 else None)
            known = [y for y in ys if not math.isnan(y)]
            told.append(f"{word} from {short(known[0])} to {short(known[-1])}")
        if panel.floor:
            axes.set_ylim(bottom=min([0.0, *(y for y in known if y < 0)]))

    svg = draw(2.3, paint)
    note = f"each point is a mean over {stretch} steps" if stretch > 1 else ""
    span = f"steps {metrics.steps[0]} to {metrics.steps[-1]}"
    words = legend([word for _, word in lines])
    return Plot(panel.title, svg, f"{panel.title} over {span}: {'; '.join(told)}.", note, words)


def legend(words: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """Series 1, 2, ... with their words; none for a single line."""
    return tuple(enumerate(words, 1)) if len(words) > 1 else ()


def _time_split(metrics: Metrics, parts: Sequence[tuple[str, str]]) -> Plot:
    columns = [thinned(metrics.steps, metrics.columns[name]) for name, _ in parts]
    heights = [[0.0 if math.isnan(y) else y for y in ys] for _, ys in columns]

    def paint(axes: Any) -> None:
        step_axes(axes, "seconds")
        axes.stackplot(columns[0][0], *heights, colors=SERIES, linewidth=0, alpha=0.8)

    means = [f"{word} {short(sum(ys) / len(ys))} s" for (_, word), ys in zip(parts, heights, strict=True)]
    alt = f"Mean seconds of a step: {', '.join(means)}."
    words = legend([word for _, word in parts])
    return Plot("Where a step's seconds go", draw(2.3, paint), alt, legend=words)


def step_axes(axes: Any, unit: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.01)
    axes.grid(visible=False, axis="x")


def thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most POINTS points: means over neighbouring steps; NaN where a stretch has no value."""
    stretch = math.ceil(len(steps) / POINTS)
    if stretch <= 1:
        return [float(step) for step in steps], list(values)
    xs, ys = [], []
    for start in range(0, len(steps), stretch):
        known = [value for value in values[start : start + stretch] if not math.isnan(value)]
        xs.append(sum(steps[start : start + stretch]) / len(steps[start : start + stretch]))
        ys.append(sum(known) / len(known) if known else math.nan)
    return xs, ys


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """Centred mean over 2 reach - 1 values (fewer at the ends), over what is known; NaN stays NaN."""
    out = []
    for i, value in enumerate(values):
        near = [one for one in values[max(0, i - reach + 1) : i + reach] if not math.isnan(one)]
        out.append(sum(near) / len(near) if near and not math.isnan(value) else math.nan)
    return out

"""`openrs watch RUN`: how a run goes, from its files alone, so also over a cluster's or a container's volume. No torch.

Everything shown is cleaned: completions, names and log lines are other people's words.
"""

import itertools
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.cells import set_cell_size

from openrs.config.yaml_lines import read_yaml
from openrs.errors import UserError
from openrs.outside import open_regular, read_json
from openrs.run.directory import Run
from openrs.run.files import json_lines_in, last_lines
from openrs.run.terminal import clean, redraw, say
from openrs.run.units import format_bytes, format_duration

BARS, PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
# metrics.jsonl's name, the word, factor and unit; the parts of the reward come after the first.
SHOWN = (
    ("reward", "reward", 1, ""),
    ("accuracy", "accuracy", 100, "%"),
    ("completions/mean_length", "length", 1, "tokens"),
    ("completions/clipped_ratio", "cut off", 100, "%"),
    ("kl", "KL", 1, "nats/token"),
    ("time/step", "step time", 1, "s"),
)
PACE = 20  # steps whose mean time gives the time left
SILENT = 300.0  # seconds without a sign of life after which the run is called silent
COMPLETIONS = 3


@dataclass(slots=True)
class Metrics:
    """metrics.jsonl, read on from where the last look ended. rows: by step; a step done again replaces the older."""

    path: Path
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    _read: int = 0

    def look(self) -> None:
        """Read what is new. A file that is shorter than before was rewound by a resumed run and is read again."""
        if not self.path.is_file():
            return
        with open_regular(self.path) as file:
            if file.seek(0, 2) < self._read:
                self._read, self.rows = 0, {}
            file.seek(self._read)
            for line in json_lines_in(file):
                if not line.ended:
                    break
                self._read = file.tell()
                row = line.row or {}  # a damaged line has none; the report counts them
                step = row.get("step")
                if isinstance(step, int) and not isinstance(step, bool) and 0 < step < 1e15:
                    if step in self.rows:  # a resumed run is here again
                        self.rows = {old: kept for old, kept in self.rows.items() if old < step}
                    self.rows[step] = row

    def column(self, name: str) -> list[float]:
        """The finite values of a metric, by step."""
        values = (row.get(name) for row in self.rows.values())
        return [float(v) for v in values if isinstance(v, int | float) and abs(v) < 1e100]  # NaN is not below it


def last_attempt(run: Run) -> dict[str, Any]:
    """The manifest's entry of the last launch; empty when it cannot be read."""
    try:
        tree = read_json(run.manifest)
    except UserError:
        return {}
    attempts = tree.get("attempts") if isinstance(tree, dict) else None
    last = attempts[-1] if isinstance(attempts, list) and attempts else None
    return last if isinstance(last, dict) else {}


def has_ended(run: Run) -> bool:
    """Whether the last launch ended, however it did. Without a manifest (one evaluation) nothing is going on."""
    attempt = last_attempt(run)
    return not attempt or "ended" in attempt


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """At most `width` characters, each the mean of an equal stretch of the values."""
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    parts = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    top = len(bars) - 1
    return "".join(bars[round((mean - low) / (high - low) * top) if high > low else 0] for mean in means)


def screen(run: Run, metrics: Metrics, width: int, *, unicode: bool = True) -> list[str]:
    """The lines of one look, each at most `width` columns wide."""
    metrics.look()
    lines = [*_head(run, metrics), *_curves(metrics, width, BARS if unicode else PLAIN_BARS)]
    lines += [f"alarms  {_alarms(metrics.rows)}", f"disk    {format_bytes(shutil.disk_usage(run.path).free)} free"]
    attempts = run.attempts()
    lines += [f"log     {line}" for attempt in attempts[-1:] for line in last_lines(attempt / "log", 1)]
    return fitted([*lines, *_completions(run)], width, unicode=unicode)


def fitted(lines: Iterable[str], width: int, *, unicode: bool) -> list[str]:
    """Cleaned lines, each at most `width` columns wide."""
    encoding = "utf-8" if unicode else "ascii"
    shown = (clean(" ".join(line.split("\n"))).encode(encoding, "backslashreplace").decode(encoding) for line in lines)
    return [set_cell_size(line, width).rstrip() for line in shown]


def _head(run: Run, metrics: Metrics) -> Iterator[str]:
    planned, step = _planned(run), max(metrics.rows, default=0)
    done = f"step {step}" + (f" of {planned}, {100 * step // planned} %" if planned else "")
    yield f"{run.path.resolve().name}: {_state(run)}"
    spent = metrics.column("time/step")[-PACE:]
    if not has_ended(run) and planned and spent and step < planned:
        done += f", {format_duration(sum(spent) / len(spent) * (planned - step))} of training left"
    yield done


def _state(run: Run) -> str:
    attempt = last_attempt(run)
    if "ended" in attempt:
        return f"ended with exit code {attempt.get('exit_code')}: {attempt.get('reason') or 'no reason recorded'}"
    signs = [path.stat().st_mtime for path in (run.metrics, *run.path.glob("attempts/*/log")) if path.is_file()]
    silence = max(0.0, time.time() - max(signs)) if signs else 0.0
    if silence > SILENT:
        return f"no sign of life for {format_duration(silence)}: killed, stuck, or in a long phase"
    return f"running, last sign of life {format_duration(silence)} ago"


def _planned(run: Run) -> int | None:
    try:
        tree = read_yaml(run.recipe)[0]
    except UserError:
        return None
    for part, key in (("training", "stop_after"), ("grpo", "max_steps")):
        section = tree.get(part) if isinstance(tree, dict) else None
        value = section.get(key) if isinstance(section, dict) else None
        if isinstance(value, int) and value > 0:
            return value
    return None


def _curves(metrics: Metrics, width: int, bars: str) -> Iterator[str]:
    names = dict.fromkeys(name for row in metrics.rows.values() for name in row)
    parts = [
        (name, "  " + name.split("/")[1], 1, "")
        for name in names
        if name.startswith("rewards/") and name.endswith("/mean")
    ]
    for name, word, factor, unit in (SHOWN[0], *parts, *SHOWN[1:]):
        values = metrics.column(name)
        if values:
            head = f"{word[:12]:<12} {f'{factor * values[-1]:.4g} {unit}':<18} "
            yield head + sparkline(values, min(60, width - len(head)), bars)


def _alarms(rows: Mapping[int, Mapping[str, Any]]) -> str:
    raised = [
        (step, str(name)) for step, row in rows.items() if isinstance(row.get("alarms"), list) for name in row["alarms"]
    ]
    firsts = {name: step for step, name in reversed(raised)}
    counts = Counter(name for _, name in raised)
    return "; ".join(f"{name} {count} times, first at step {firsts[name]}" for name, count in counts.items()) or "none"


def _completions(run: Run) -> Iterator[str]:
    files = sorted(run.completions.glob("step-*.parquet"))
    if not files:
        return
    try:
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        yield "completions: pyarrow is not installed here, so none are shown"
        return
    try:
        with ParquetFile(files[-1]) as file:
            batches = list(itertools.islice(file.iter_batches(batch_size=100), 1))
        rows = [row for batch in batches for row in batch.to_pylist()]
    except (OSError, ValueError) as error:  # pyarrow's errors for broken files are ValueErrors
        yield f"completions: {files[-1].name} cannot be read: {error}"
        return
    yield f"completions of {files[-1].stem}"
    for row in rows[:: max(1, len(rows) // COMPLETIONS)][:COMPLETIONS]:
        text = " ".join(str(row.get("completion") or "").split())
        yield f"  {row.get('verdict') or 'not judged'}, {row.get('id')}: {text[:2000]}"


def watch(run: Run, every: float, *, once: bool = False, pause: Callable[[float], None] = time.sleep) -> None:
    """Show a run until it ends: in a terminal one picture that is drawn again, elsewhere a block for each new step."""
    metrics, before = Metrics(run.metrics), -1
    live = sys.stdout.isatty() and not once
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    while True:
        ended = once or has_ended(run)
        size = shutil.get_terminal_size()
        lines = screen(run, metrics, max(20, size.columns), unicode=unicode)
        step = max(metrics.rows, default=0)
        if live:
            redraw(lines[: max(1, size.lines - 1)])
        elif ended or step != before:
            say("\n".join(lines) + "\n")
        if ended:
            return
        before = step
        pause(every)

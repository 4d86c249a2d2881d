"""What the benchmarks share: ratios with their spread, a table, a JSON file, and what the machine was.

A benchmark compares two ways of doing the same work, side by side: A, B, A, B ... so that a busy machine slows both.
Only ratios are kept (benchmarks/ratios.json); seconds are printed for a person and hold for one machine and one hour.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Both sides of every comparison run with this. One OpenMP thread: two pools on one core spin (docs/stack.md).
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "DS_ACCELERATOR": "cpu",
    "PYTHONPATH": str(ROOT),
}


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g}, n {self.n})"


def spread(values: Sequence[float]) -> Spread:
    """Quartiles need four values; of fewer, the smallest and the largest are given."""
    values = sorted(values)
    if len(values) < 4:
        return Spread(statistics.median(values), values[0], values[-1], len(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high, len(values))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Spread of theirs / ours, each pair measured one right after the other: above 1, ours is faster."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])


def arguments(text: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as JSON")
    return parser


def shared_data() -> Path:
    """The folder with real data: OPENRS_SHARED_DATA, or ../shared/data beside the repository."""
    return Path(os.environ.get("OPENRS_SHARED_DATA") or ROOT.parent / "shared" / "data")


def environment() -> dict[str, str]:
    """The environment of a child, with the settings of both sides."""
    return {**os.environ, **SETTINGS}


def child_seconds() -> float:
    """Processor seconds of all children that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def own_and_children() -> float:
    """Processor seconds of this process and of its children that have ended."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime + child_seconds()


def tree_seconds(pid: int) -> float:
    """Processor seconds so far of a process and everything under it, running or waited for. Linux only."""
    tick = os.sysconf("SC_CLK_TCK")
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
            used[int(folder.name)] = sum(map(int, fields[11:15])) / tick
    total, left = 0.0, [pid]
    while left:
        one = left.pop()
        total += used.get(one, 0.0)
        left += parents.get(one, [])
    return total


def machine() -> dict[str, Any]:
    """Kind of machine, load and versions: what a reader needs to judge a figure. No host name."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "cpu": name,
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "commit": commit or None,
        "arguments": sys.argv[1:],
    }


def clocks() -> dict[str, str] | None:
    """What nvidia-smi says of clocks, power, heat and driver of the first GPU that we may see; None without one."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,memory.total"
    words = ["nvidia-smi", f"--id={first}", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = done.stdout.strip().split(", ")
    return dict(zip(fields.split(","), values, strict=True)) if len(values) == 8 and done.returncode == 0 else None


def table(rows: Sequence[Sequence[object]]) -> str:
    """Columns, the first row their heads."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def finish(
    name: str, path: Path | None, ratios: dict[str, Spread], rows: Sequence[Sequence[object]], **more: Any
) -> None:
    """Print the table, the ratios and the load; write the JSON.

    `ratios` are named as in ratios.json. JSON: benchmark, machine, ratios (value, low, high, n), rows, and `more`.
    """
    told = machine()
    print(table(rows))
    for key, ratio in ratios.items():
        print(f"{key}: {ratio}")
    print(f"load {told['load'][0]:.1f} on {told['processors']} processors, commit {told['commit']}", flush=True)
    if path is not None:
        found = {
            key: {"value": one.median, "low": one.low, "high": one.high, "n": one.n} for key, one in ratios.items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"benchmark": name, "machine": told, "ratios": found, "rows": rows, **more}, indent=2)
        path.write_text(text + "\n")

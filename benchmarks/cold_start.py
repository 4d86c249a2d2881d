"""Cold start: how long until openrs answers, and until a training has done its first step.

    python benchmarks/cold_start.py [--repeats 5] [--json FILE]

The other side of every ratio is what a user of TRL waits for before anything happens:
`python -c "from trl import GRPOTrainer"`. All commands in turn, in new processes, files in the page cache. `train` is
the demo's recipe with a model that is there, to the end of its only step, and `script` the same from a bare TRL script
(training_overhead.py), each in one process with one thread.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import training_overhead

IMPORT = "from trl import GRPOTrainer"
OPENRS = [sys.executable, "-m", "openrs.cli"]


def run(words: list[str], cwd: Path) -> tuple[float, float]:
    """Wall and processor seconds of a command and all that it started."""
    with (cwd / "log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env=common.environment() | {"PYTHONPATH": f"{common.ROOT}:{Path(__file__).parent}"},
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)}\nended with {process.returncode}:\n{(cwd / 'log').read_text()[-2000:]}")
    return wall, used.ru_utime + used.ru_stime


def to_first_step(folder: Path, number: int) -> list[str]:
    """`openrs train` that ends after its first step, in a run directory of its own."""
    place = folder / f"run{number}"
    place.mkdir()
    (place / "base").symlink_to(folder / "base")
    return [*OPENRS, "train", str(folder / "recipe.yaml"), "--run", str(place)]


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    parser.add_argument("--quick", action="store_true", help="only what answers at once: --help, recipe show, plan")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        cwd = Path(scratch)
        training_overhead.prepare(cwd, steps=1, judged=True)
        child = str(Path(training_overhead.__file__))
        for number in range(-1, args.repeats):  # the first round warms the page cache
            commands = {
                "import trl": [sys.executable, "-c", IMPORT],
                "openrs --help": [*OPENRS, "--help"],
                "openrs recipe show": [*OPENRS, "recipe", "show", "exp3"],
                "openrs plan": [*OPENRS, "plan", "exp3"],
            }
            if not args.quick:
                commands["openrs train, one step"] = to_first_step(cwd, number)
                commands["TRL script, one step"] = [
                    sys.executable,
                    child,
                    "--child",
                    "judged",
                    str(cwd),
                    "--block",
                    "0",
                ]
            for name, words in commands.items():
                seconds = run(words, cwd)
                if number >= 0:
                    found.setdefault(name, []).append(seconds)
    rows: list[list[object]] = [["command", "s", "CPU s", "share of import trl"]]
    ratios = {}
    for name, done in found.items():
        wall, cpu = ([one[i] for one in done] for i in (0, 1))
        share = common.paired([one[1] for one in found["import trl"]], cpu)
        rows.append([name, str(common.spread(wall)), str(common.spread(cpu)), f"{share.median:.3g}"])
        key = name.removeprefix("openrs ").replace(", one step", "").strip("-").replace(" ", "_")
        if name.startswith("openrs"):
            ratios[f"cold_start/{key}/cpu"] = share
    if not args.quick:
        pair = [[one[1] for one in found[f"{name}, one step"]] for name in ("TRL script", "openrs train")]
        ratios["cold_start/train_over_script/cpu"] = common.paired(*pair)
        pair = [[one[0] for one in found[f"{name}, one step"]] for name in ("TRL script", "openrs train")]
        ratios["cold_start/train_over_script/wall"] = common.paired(*pair)
    common.finish("cold_start", args.json, ratios, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

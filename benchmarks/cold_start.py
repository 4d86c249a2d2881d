"""Cold start: how long until openrs answers, until a training has done its first step, until a tiny model is evaluated.

    python benchmarks/cold_start.py [--repeats 5] [--against CHECKOUT] [--json FILE]

The other side of every ratio is what a user of TRL waits for before anything happens:
`python -c "from trl import GRPOTrainer"`. All commands in turn, in new processes, files in the page cache. `train` is
the demo's recipe with a model that is there, to the end of its only step, and `script` the same from a bare TRL script
(training_overhead.py), each in one process with one thread. `evaluate` is the demo's 512 sums on that model, 8 tokens
each. --against runs the same commands of another checkout, each right after ours: what a change of the code saves.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import training_overhead

IMPORT = "from trl import GRPOTrainer"
OPENRS = [sys.executable, "-m", "openrs.cli"]


def run(words: list[str], cwd: Path, checkout: Path = common.ROOT) -> tuple[float, float]:
    """Wall and processor seconds of a command and all that it started, with the openrs of a checkout."""
    with (cwd / "log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env=common.environment() | {"PYTHONPATH": f"{checkout}:{Path(__file__).parent}"},
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)}\nended with {process.returncode}:\n{(cwd / 'log').read_text()[-2000:]}")
    return wall, used.ru_utime + used.ru_stime


def to_first_step(folder: Path, place: Path) -> list[str]:
    """`openrs train` that ends after its first step, in a run directory of its own."""
    shutil.copytree(folder / "base", place / "base")
    return [*OPENRS, "train", str(folder / "recipe.yaml"), "--run", str(place)]


def commands_of(folder: Path, place: Path, args: argparse.Namespace) -> dict[str, list[str]]:
    """What is timed in one round. place: where its runs go."""
    commands = {
        "--help": [*OPENRS, "--help"],
        "recipe show": [*OPENRS, "recipe", "show", "exp3"],
        "plan": [*OPENRS, "plan", "exp3"],
    }
    if not args.quick:
        words = [
            "evaluate",
            str(folder / "base"),
            "--benchmarks",
            "demo",
            "--engine",
            "transformers",
            "--max-tokens",
            "8",
        ]
        commands["train"] = to_first_step(folder, place)
        commands["evaluate"] = [*OPENRS, *words, "--run", f"{place}-evaluated"]
    return {name: words for name, words in commands.items() if name.strip("-") in (args.only or name.strip("-"))}


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    parser.add_argument("--quick", action="store_true", help="only what answers at once: --help, recipe show, plan")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="help, recipe show, plan, train, evaluate")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of openrs")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        cwd = Path(scratch)
        training_overhead.prepare(cwd, steps=1, judged=True)
        script = [str(Path(training_overhead.__file__)), "--child", "judged", str(cwd), "--block", "0"]
        for number in range(-1, args.repeats):  # the first round warms the page cache
            timed = {"import trl": run([sys.executable, "-c", IMPORT], cwd)}
            for name, words in commands_of(cwd, cwd / f"run{number}", args).items():
                timed[f"openrs {name}"] = run(words, cwd)
                if args.against:
                    theirs = commands_of(cwd, cwd / f"against{number}", args)[name]
                    timed[f"{name} there"] = run(theirs, cwd, args.against.resolve())
            if "openrs train" in timed:
                timed["TRL script"] = run([sys.executable, *script], cwd)
            for name, seconds in timed.items() if number >= 0 else ():
                found.setdefault(name, []).append(seconds)
    rows: list[list[object]] = [["command", "s", "CPU s", "share of import trl"]]
    ratios = {}

    def share(of: str, name: str, clock: int = 1) -> common.Spread:
        return common.paired([one[clock] for one in found[of]], [one[clock] for one in found[name]])

    for name, done in found.items():
        wall, cpu = (str(common.spread([one[i] for one in done])) for i in (0, 1))
        rows.append([name, wall, cpu, f"{share('import trl', name).median:.3g}"])
        key = name.removeprefix("openrs ").strip("-").replace(" ", "_")
        if name.startswith("openrs"):
            ratios[f"cold_start/{key}/cpu"] = share("import trl", name)
            if args.against:
                ratios[f"cold_start/{key}/against"] = share(f"{name.removeprefix('openrs ')} there", name)
    if "openrs train" in found:
        ratios["cold_start/train_over_script/cpu"] = share("TRL script", "openrs train")
        ratios["cold_start/train_over_script/wall"] = share("TRL script", "openrs train", 0)
    common.finish("cold_start", args.json, ratios, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

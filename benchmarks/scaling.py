"""How cost grows with work: does anything grow faster than it should?

    python benchmarks/scaling.py [--only batch length processes samples rows] [--json FILE]

    batch      completions of a step, 24 to 192     processor seconds of a step, judging included
    length     tokens of each completion, 20 to 160
    processes  1 and 2 with the same 72 completions of a step, two micro-batches each way (torchrun, gloo)
    samples    samples a problem of `openrs evaluate`, 1 to 8     processor seconds of the whole command
    rows       rows of `openrs curate`, 250 to 2,000 of DeepScaleR's (../shared/data, or OPENRS_SHARED_DATA)

The exponent e is of cost ~ work^e between the smallest and the largest size, for whole commands without their start
(the cost of the smallest size, taken off the others). 1 is a cost that grows as its work; attention makes the length's
a little more than 1. All on one thread, the demo's recipe and model; processor time, because the wall clock of a busy
machine says little.
"""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cold_start
import common
import training_overhead


def exponent(work: Sequence[float], cost: Sequence[float]) -> float:
    """Of the power law through the first and the last point."""
    return math.log(cost[-1] / cost[0]) / math.log(work[-1] / work[0])


# --- a step -----------------------------------------------------------------------------------------------------------


def clock(seconds: list[float]) -> type:
    """A callback that notes the processor seconds of each step, with everything that this process started."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            seconds.append(common.tree_seconds(os.getpid()))

        def on_train_end(self, *_: Any, **__: Any) -> None:
            seconds.append(common.tree_seconds(os.getpid()))

    return Clock


def steps(folder: Path, overrides: list[str]) -> common.Spread:
    """Processor seconds of a step of the prepared recipe in `folder`, here in this process."""
    from transformers import trainer

    from openrs.config.load import load
    from openrs.run.attempt import attempt
    from openrs.run.directory import run_at
    from openrs.training import launch

    place = folder / f"run{len(list(folder.iterdir()))}"
    shutil.copytree(folder / "base", place / "base")
    recipe, run = load(str(folder / "recipe.yaml"), overrides), run_at(str(place))
    seconds: list[float] = []
    callback = clock(seconds)
    trainer.DEFAULT_CALLBACKS.append(callback)
    with (folder / "log").open("w") as log, attempt(recipe, run) as progress:
        progress._stream = log  # its lines belong to no table
        launch.train(recipe, run, progress)
    trainer.DEFAULT_CALLBACKS.remove(callback)
    each = [after - before for before, after in itertools.pairwise(seconds)]
    return common.spread(each[2:])  # the first ones warm up


def batch(folder: Path) -> tuple[list[float], list[common.Spread]]:
    sizes = [24, 48, 96, 192]
    return [float(n) for n in sizes], [steps(folder, [f"grpo.per_device_train_batch_size={n}"]) for n in sizes]


def length(folder: Path) -> tuple[list[float], list[common.Spread]]:
    sizes = [20, 40, 80, 160]
    made = "grpo.generation_kwargs={temperature: 0.7, min_new_tokens: %d}"
    return [float(n) for n in sizes], [
        steps(folder, [f"grpo.max_completion_length={n}", made % n]) for n in sizes
    ]  # fmt: skip


def watched(words: list[str], cwd: Path) -> float:
    """Processor seconds of a command's whole tree, looked at ten times a second: torchrun's children are not waited for
    by everybody above them, so the last look before they go is what counts."""
    most = 0.0
    with (cwd / "log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=cwd, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env=common.environment() | {"PYTHONPATH": f"{common.ROOT}:{Path(__file__).parent}"},
        )  # fmt: skip
        while process.poll() is None:
            most = max(most, common.tree_seconds(process.pid))
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{' '.join(words)}\nended with {process.returncode}:\n{(cwd / 'log').read_text()[-2000:]}")
    return most


def processes(folder: Path) -> tuple[list[float], list[common.Spread]]:
    """Seconds of a step summed over the processes: what the second one adds is talk and idle work."""
    found = []
    for number in (1, 2):
        totals = []
        for count in (4, 28):  # whole commands; the difference is 24 steps
            place = folder / f"processes{number}-{count}"
            shutil.copytree(folder / "base", place / "base")
            words = [*cold_start.OPENRS, "train", str(folder / "recipe.yaml"), "--run", str(place)]
            for setting in (f"grpo.max_steps={count}", f"hardware.processes={number}", "grpo.warmup_steps=1"):
                words += ["--set", setting]
            words += ["--set", f"grpo.gradient_accumulation_steps={2 // number}"]
            words += ["--set", "grpo.per_device_train_batch_size=36"]
            totals.append(watched(words, folder))
        found.append(common.spread([(totals[1] - totals[0]) / 24]))
    return [1.0, 2.0], found


# --- whole commands ---------------------------------------------------------------------------------------------------


def samples(folder: Path) -> tuple[list[float], list[common.Spread]]:
    """512 held-out sums, transformers, 40 tokens at most."""
    sizes, found = [1, 2, 4, 8], []
    for size in sizes:
        words = [*cold_start.OPENRS, "evaluate", str(folder / "base"), "--benchmarks", "demo", "--samples", str(size)]
        words += ["--engine", "transformers", "--max-tokens", "40", "--batch-size", "64", "--run", f"samples{size}"]
        found.append(common.spread([cold_start.run([*words, "--dtype", "float32"], folder)[1]]))
    return [512.0 * n for n in sizes], found


def rows(folder: Path) -> tuple[list[float], list[common.Spread]]:
    """Real problems of DeepScaleR through the chain for one's own rows (curation/recipes/own.yaml), one process."""
    import pyarrow.parquet as pq

    data = common.shared_data()
    if not (data / "training").is_dir():
        sys.exit(f"scaling.py: no training/ in {data}: set OPENRS_SHARED_DATA, or leave rows out with --only")
    table = pq.read_table(data / "training" / "deepscaler_part1.parquet").slice(0, 2000).to_pylist()
    lines = [
        json.dumps({"problem": row["prompt"][0]["content"], "answer": row["reward_model"]["ground_truth"]}) + "\n"
        for row in table
    ]
    sizes, found = [250, 500, 1000, 2000], []
    for size in sizes:
        (folder / f"rows{size}.jsonl").write_text("".join(lines[:size]), encoding="utf-8")
        words = [*cold_start.OPENRS, "curate", f"rows{size}.jsonl", "--out", f"out{size}", "--workers", "1"]
        words += ["--set", f"stages.decontaminate.data={data / 'benchmarks'}"]
        found.append(common.spread([cold_start.run(words, folder)[1]]))
    return [float(n) for n in sizes], found


QUESTIONS = {"batch": batch, "length": length, "processes": processes, "samples": samples, "rows": rows}


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS), metavar="QUESTION")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="of each training (default 8)")
    args = parser.parse_args()
    os.environ.update({**common.SETTINGS, **os.environ})
    table: list[list[object]] = [["question", "work", "CPU s", "CPU s per 1,000 of work"]]
    ratios, found = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        training_overhead.prepare(folder, steps=args.steps, judged=True)
        sys.path.insert(0, str(Path(__file__).parent))
        for question in args.only:
            work, cost = QUESTIONS[question](folder)
            for size, one in zip(work, cost, strict=True):
                table.append([question, f"{size:g}", str(one) if one.n > 1 else one.median, 1000 * one.median / size])
            medians = [one.median for one in cost]
            whole = question in {"samples", "rows"}
            if whole:  # the start is the same for all: what is beyond the smallest size is work
                slope = exponent([w - work[0] for w in work[1:]], [c - medians[0] for c in medians[1:]])
            else:
                slope = exponent(work, medians)
            found[question] = {"work": work, "cost": medians, "exponent": slope}
            ratios[f"scaling/{question}"] = common.spread([slope])
            print(json.dumps({question: found[question]}), flush=True)
    common.finish("scaling", args.json, ratios, table, found=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

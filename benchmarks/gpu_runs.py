"""Four steps of `openrs train demo`, and the same killed after a checkpoint and resumed (parts of scripts/gpu-check).

python benchmarks/gpu_runs.py train --run DIR [--cpu] [--json FILE]
python benchmarks/gpu_runs.py resume --run DIR [--cpu] [--json FILE]    # after train: DIR holds its run
"""

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import common

from openrs.run import checkpoints
from openrs.run.files import read_jsonl

STEPS, SAVE = 4, 2


def command(run: Path, *, cpu: bool) -> list[str]:
    settings = [
        f"grpo.max_steps={STEPS}", f"grpo.save_steps={SAVE}", "grpo.warmup_steps=2", "model.toy.steps=100",
        "data.limit=60", "rewards.workers=1", "rewards.timeout_seconds=60",
    ]  # fmt: skip
    if not cpu:
        settings += ["hardware.gpus=1", "grpo.bf16=true"]
    sets = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "openrs.cli", "train", "demo", "--run", str(run), *sets]


def metrics(run: Path) -> list[dict[str, Any]]:
    """Of each step all that no clock measured."""
    timed = ("time/", "step_time", "judge/seconds")
    path = run / "metrics.jsonl"
    rows = read_jsonl(path) if path.is_file() else []
    return [{key: value for key, value in row.items() if not key.startswith(timed)} for row in rows if "loss" in row]


def kill_and_resume(run: Path, *, cpu: bool) -> str:
    """SIGKILL as soon as step 2's checkpoint is complete, then the same command. Returns what went wrong, or ''."""
    process = subprocess.Popen(command(run, cpu=cpu))
    while process.poll() is None and not checkpoints.list_complete(run / "checkpoints"):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    if (code := process.wait()) != -signal.SIGKILL:
        return f"the run that was to be killed ended by itself with exit code {code}"
    killed_at = len(metrics(run))
    print(f"killed after step {killed_at}; the same command again", flush=True)
    code = subprocess.run(command(run, cpu=cpu), check=False).returncode
    return f"the resumed run ended with exit code {code}" if code else ""


def evaluate(run: Path) -> list[list[Any]]:
    """`openrs evaluate` of the run's checkpoint; verdict and number of samples. Exits when it fails or has none.

    lighteval, which writes the scores, is too much to carry: without it the samples are one shard, drawn and judged.
    """
    words = ["evaluate", str(run), "--engine", "transformers", "--samples", "1", "--max-tokens", "16"]
    shard = [] if find_spec("lighteval") else ["--shard", "1/1"]
    done = subprocess.run([sys.executable, "-m", "openrs.cli", *words, *shard], check=False)
    if done.returncode:
        sys.exit(f"gpu_runs.py: openrs evaluate ended with exit code {done.returncode}")
    journals = sorted((run / "eval").rglob("samples.jsonl"))
    verdicts = Counter(row["verdict"] for journal in journals for row in read_jsonl(journal))
    if not verdicts or verdicts["crash"]:
        sys.exit(f"gpu_runs.py: verdicts of the samples: {dict(verdicts)}")
    return [["verdict", "samples"], *map(list, sorted(verdicts.items()))]


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("part", choices=("train", "resume", "evaluate"))
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of the undisturbed run")
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    args = parser.parse_args()
    if args.part == "evaluate":
        common.finish("gpu_runs", args.json, {}, evaluate(args.run), scored=find_spec("lighteval") is not None)
        return 0
    wrong: list[str] = []
    more: dict[str, Any] = {}
    run = args.run
    if args.part == "train":
        if code := subprocess.run(command(run, cpu=args.cpu), check=False).returncode:
            sys.exit(f"gpu_runs.py: openrs train demo ended with exit code {code}")
    else:
        alone = metrics(run)
        if len(alone) != STEPS:
            sys.exit(f"gpu_runs.py: {run.name} holds no undisturbed run of {STEPS} steps to compare with")
        run = run.with_name(run.name + "-killed")
        run.mkdir()
        shutil.copytree(args.run / "base", run / "base")
        if text := kill_and_resume(run, cpu=args.cpu):
            sys.exit(f"gpu_runs.py: {text}")
    rows = metrics(run)
    if [row["step"] for row in rows] != list(range(1, STEPS + 1)):
        wrong.append(f"metrics.jsonl has the steps {[row['step'] for row in rows]}")
    if not any(row["grad_norm"] > 0 for row in rows):
        wrong.append("no step has a gradient")
    if args.part == "resume" and not wrong:
        apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(rows, alone, strict=True))
        more = {"bit_equal": rows == alone, "largest_loss_difference": apart}
        if args.cpu and not more["bit_equal"]:  # GPUs add in any order, so there it is a figure and no fault
            wrong.append("its metrics differ from the undisturbed run's")
    keys = ("step", "loss", "grad_norm", "reward")
    table = [list(keys), *[[row.get(key) for key in keys] for row in rows]]
    common.finish("gpu_runs", args.json, {}, table, wrong=wrong, **more)
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

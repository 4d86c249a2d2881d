"""What `openrs train` costs over a bare TRL script: seconds per step, the same settings on the same tiny model.

    python benchmarks/training_overhead.py [--steps 24] [--block 3] [--json FILE]

Two processes, one thread each, hand each other the machine: a block of steps here, a block there, each waiting while
the other runs. Both: the demo's model and prompts, 12 problems x 6 completions a step, every completion 40 tokens long
(so that both do the same work whatever they sample), the same GRPOConfig, logging every step to TensorBoard.
openrs does besides: metrics.jsonl (synced to disk), completions as parquet, monitors, watchdog, resumable state.

Two comparisons: `same reward`, where both use one cheap function and only the trainers differ; and `judged`, where the
script has the published rewards in its own process (math-verify, no limit) and openrs its pool of one worker.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

RECIPE = """\
extends: demo
model: {{toy: {{seed: 0, layers: 2, hidden: 96, heads: 3, steps: 60, learning_rate: 6e-3}}}}
data: {{source: toy-sums, limit: 600}}
rewards:
  mode: paper
  workers: 1
  functions: {functions}
grpo:
  max_steps: {steps}
  warmup_steps: 0
  save_steps: 1000000
  generation_kwargs: {{temperature: 0.7, min_new_tokens: 40}}
"""
JUDGED = "[{name: format, weight: 1.0}, {name: accuracy, weight: 2.0}]"
SAME = '[{name: "training_overhead:cheap", weight: 1.0}]'
WANTED = 1.03


def cheap(completions: list[str], **_: Any) -> list[float]:
    """A reward that costs nothing and spreads."""
    return [sum(map(ord, text)) % 97 / 97 for text in completions]


# --- the published rewards, as a script would have them ---------------------------------------------------------------


def published_format(completions: list[str], **_: Any) -> list[float]:
    return [1.0 if text.count("\n</think>\n") == 1 else 0.0 for text in completions]


def published_accuracy(completions: list[str], gold: list[str], **_: Any) -> list[float]:
    """rewards.py of knoveleng/open-rs at 2889c47: one after the other, in this process."""
    from grading import published

    return [published(truth, text) for truth, text in zip(gold, completions, strict=True)]


# --- the two processes ------------------------------------------------------------------------------------------------


def hold_steps(block: int) -> None:
    """Make every trainer of this process wait for a line on stdin before each block of steps, and say when it is over.

    0: no waiting. What lies between two steps (logging, records, callbacks) is inside.
    """
    from transformers import TrainerCallback, trainer

    if block == 0:
        return
    talk = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    class Gate(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step % block == 0:
                talk.write("ready\n")
                if not sys.stdin.readline():
                    os._exit(0)

    trainer.DEFAULT_CALLBACKS.append(Gate)


def run_openrs(folder: Path, block: int) -> int:
    hold_steps(block)
    from openrs.cli.main import main

    return main(["train", str(folder / "recipe.yaml"), "--run", str(folder / "openrs")])


def run_script(folder: Path, block: int, judged: bool) -> int:
    """A bare TRL script, with the settings of the recipe."""
    hold_steps(block)
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from openrs.config.load import load
    from openrs.data import prompts
    from openrs.data.problems import load_problems
    from openrs.training.train import grpo_settings

    recipe = load(str(folder / "recipe.yaml"))
    settings = grpo_settings(recipe, folder / "script", [1.0, 2.0] if judged else [1.0])
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    problems = load_problems(recipe.data).rows
    texts = [prompts.render(tokenizer, recipe.prompt, problem.problem) for problem in problems]
    GRPOTrainer(
        model=str(folder / "base"),
        args=GRPOConfig(**{**settings, "report_to": ["tensorboard"]}),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": texts, "gold": [problem.answer for problem in problems]}),
        reward_funcs=[published_format, published_accuracy] if judged else [cheap],
    ).train()
    return 0


class Side:
    """One of the processes, as the parent sees it."""

    def __init__(self, words: list[str], log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("wb"),
            env=common.environment() | {"PYTHONPATH": f"{common.ROOT}:{Path(__file__).parent}"}, text=True,
        )  # fmt: skip
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def ready(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            sys.exit(f"it ended before its steps were done:\n{self._log.read_text()[-3000:]}")

    def block(self) -> None:
        assert self._process.stdin is not None
        began, before = time.perf_counter(), common.tree_seconds(self._process.pid)
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.ready()
        self.wall.append(time.perf_counter() - began)
        self.cpu.append(common.tree_seconds(self._process.pid) - before)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def prepare(folder: Path, steps: int, *, judged: bool) -> None:
    """The recipe and the made model in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(functions=JUDGED if judged else SAME, steps=steps))
    make = "import sys; from pathlib import Path; from openrs.config.load import load; from openrs.training import"
    make += " demo_model; demo_model.make(load(sys.argv[1]).model.toy, Path(sys.argv[2]))"
    subprocess.run(
        [sys.executable, "-c", make, folder / "recipe.yaml", folder / "base"], env=common.environment(), check=True
    )


def compare(folder: Path, blocks: int, block: int, *, judged: bool) -> tuple[Side, Side]:
    """Both sides, block by block, after one block that warms up."""
    prepare(folder, (blocks + 2) * block, judged=judged)
    kind = "judged" if judged else "same"
    shutil.copytree(folder / "base", folder / "openrs" / "base")
    words = [str(Path(__file__)), "--block", str(block), "--child"]
    ours = Side([*words, "openrs", str(folder)], folder / "openrs.log")
    ours.ready()
    theirs = Side([*words, kind, str(folder)], folder / "script.log")
    theirs.ready()
    ours.block()
    theirs.block()
    ours.wall.clear(), ours.cpu.clear(), theirs.wall.clear(), theirs.cpu.clear()
    for number in range(blocks):
        for side in (ours, theirs) if number % 2 else (theirs, ours):
            side.block()
    ours.end()
    theirs.end()
    return ours, theirs


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("--steps", type=int, default=24, metavar="N", help="measured steps of each side (default 24)")
    parser.add_argument("--block", type=int, default=3, metavar="N", help="steps in a turn (default 3)")
    parser.add_argument("--only", choices=["same", "judged"], help="one of the two comparisons")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        side, folder = args.child[0], Path(args.child[1])
        return run_openrs(folder, args.block) if side == "openrs" else run_script(folder, args.block, side == "judged")
    rows: list[list[object]] = [["comparison", "side", "s/step", "CPU s/step"]]
    ratios = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in [args.only] if args.only else ["same", "judged"]:
            ours, theirs = compare(Path(scratch) / kind, args.steps // args.block, args.block, judged=kind == "judged")
            for name, side in (("openrs train", ours), ("TRL script", theirs)):
                wall, cpu = (common.spread([one / args.block for one in x]) for x in (side.wall, side.cpu))
                rows.append([kind, name, str(wall), str(cpu)])
            # ours / theirs: below 1, openrs is faster
            ratios[f"training_overhead/{kind}/wall"] = common.paired(theirs.wall, ours.wall)
            ratios[f"training_overhead/{kind}/cpu"] = common.paired(theirs.cpu, ours.cpu)
    common.finish("training_overhead", args.json, ratios, rows, wanted=f"at most {WANTED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Two processes for real, over gloo, with and without ZeRO: the losses of one process with the same global batch."""

import shutil
from pathlib import Path
from typing import Any

import given_completions
import pytest
import runs

from openrs.config.load import load
from openrs.errors import UserError
from openrs.run.attempt import attempt
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.training import launch

STEPS = 4
BASE = [
    "model.toy=null", "data.limit=60", f"grpo.max_steps={STEPS}", "grpo.save_steps=3", "grpo.warmup_steps=0",
    "grpo.learning_rate=5e-4", "grpo.per_device_train_batch_size=6", "rewards.workers=1", "training.trackers=[]",
]  # fmt: skip
COMPARED = (
    "loss", "grad_norm", "reward", "reward_std", "frac_reward_zero_std", "accuracy",
    "completions/mean_length", "completions/clipped_ratio", "completions/non_latin", "num_tokens", "learning_rate",
)  # fmt: skip
# TRL's means over the tokens of a micro-batch, of all processes together: the same tokens weigh differently.
ROUGHLY = ("kl", "entropy")


def rows_of(run: Run) -> list[dict[str, Any]]:
    return list(read_jsonl(run.metrics))


def given_completions_and_forked_ranks() -> None:
    """A fault for runs.start: all that train there are forks, and take the completions that they are given."""
    given_completions.give_completions()
    runs.fork_ranks()


def train(folder: Path, model: Path, *overrides: str) -> Run:
    """`openrs train`, with completions that are given."""
    sets = [word for setting in (*BASE, f"model.name={model}", *overrides) for word in ("--set", setting)]
    code, said = runs.openrs(["train", "demo", "--run", folder, *sets], given_completions_and_forked_ranks)
    assert code == 0, said
    return Run(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, made_model: Path) -> Run:
    """Eight micro-batches of one group in one process."""
    return train(tmp_path_factory.mktemp("one") / "run", made_model, "grpo.gradient_accumulation_steps=8")


def test_one_process_learns_something_worth_comparing(one: Run) -> None:
    rows = rows_of(one)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["accuracy"] == pytest.approx(1 / 3) for row in rows)
    assert all(row["grad_norm"] > 0.01 for row in rows)
    assert rows[-1]["kl"] > 1e-3  # the weights have moved, so that a wrong gradient would show


@pytest.mark.parametrize("zero", [0, pytest.param(1, marks=pytest.mark.soak), 2], ids=["gloo", "ZeRO-1", "ZeRO-2"])
def test_two_processes_equal_one(zero: int, one: Run, tmp_path: Path, made_model: Path) -> None:
    asked = ["hardware.processes=2", "grpo.gradient_accumulation_steps=4", f"hardware.zero_stage={zero}"]
    if zero == 1:  # with the other levers of exp3-fast, which must not show either
        asked += ["grpo.gradient_checkpointing=true", "hardware.recompute=1", "hardware.deal_by_length=true"]
    run = train(tmp_path / "run", made_model, *asked)
    alone, together = rows_of(one), rows_of(run)
    assert [row["step"] for row in together] == list(range(1, STEPS + 1))  # each step once, from one of the two
    for a, b in zip(alone, together, strict=True):
        assert b["problems"] == a["problems"]
        for name in COMPARED:
            assert b[name] == pytest.approx(a[name], rel=1e-6, abs=1e-6), f"{name} of step {a['step']}"
        assert b["kl/max"] == pytest.approx(a["kl/max"], rel=1e-5)  # one token's, so with its whole rounding
        for name in ROUGHLY:
            assert b[name] == pytest.approx(a[name], rel=0.05), f"{name} of step {a['step']}"
    log = (run.attempts()[-1] / "log").read_text()
    assert log.count(f"step {STEPS}/{STEPS}") == 1
    assert log.count("60 rows from toy-sums") == 1
    assert (run.checkpoints / f"step-{STEPS:06d}" / "checkpoint.json").is_file()
    assert len(list((run.checkpoints / f"step-{STEPS:06d}").glob("rng_state_*.pth"))) == 2

    if not zero:  # gone on with in test_resume.py
        return
    shutil.rmtree(run.checkpoints / f"step-{STEPS:06d}")  # as if the run had been killed after step 3
    train(tmp_path / "run", made_model, *asked)
    again = rows_of(run)
    assert [row["step"] for row in again] == list(range(1, STEPS + 1))
    for a, b in zip(together, again, strict=True):
        assert {name: b[name] for name in (*COMPARED, *ROUGHLY)} == {name: a[name] for name in (*COMPARED, *ROUGHLY)}


def test_a_refusal_in_the_workers_is_told_once_and_as_a_refusal(tmp_path: Path, made_model: Path) -> None:
    """Four problems are too few for a step of eight: every worker finds that; exit code 2 and one message come out.
    With torchrun itself, and interpreters of their own."""
    changes = ["hardware.processes=2", "grpo.gradient_accumulation_steps=4", "data.limit=4"]
    recipe, run = load("demo", [*BASE, f"model.name={made_model}", *changes]), Run(tmp_path / "run")
    with (
        pytest.raises(UserError, match="4 problems are fewer than the 8 of one step"),
        attempt(recipe, run) as progress,
    ):
        launch.train(recipe, run, progress)

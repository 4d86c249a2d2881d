"""What breaks around a training: the disk, the hub, the judge, the numbers, a second process. Each fault is real."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import runs

from openrs.run import checkpoints
from openrs.run.directory import Run
from openrs.run.files import write_json

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
DISK = "8m"


# --- the disk ---------------------------------------------------------------------------------------------------------


def fill(disk: Path, leave: int) -> None:
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(b"0" * max(0, free - leave))


def somebody_fills_the_disk_after_step_5() -> None:
    from openrs.training.lifecycle import Lifecycle

    save = Lifecycle.on_save

    def filling(self: Lifecycle, args: object, state: object, control: object, **more: object) -> None:
        save(self, args, state, control, **more)
        fill(self._run.path.parent, leave=200_000)

    Lifecycle.on_save = filling  # type: ignore[method-assign]


def somebody_fills_the_disk_before_the_line_of_step_8() -> None:
    from openrs.run.files import Journal

    append = Journal.append

    def filling(self: Journal, row: dict[str, object]) -> None:
        if row["step"] == 8:
            fill(self.path.parent.parent, leave=0)
        append(self, row)

    Journal.append = filling  # type: ignore[method-assign, assignment]


def test_a_disk_that_gets_full(undisturbed: Path, small_disk: Path, tmp_path: Path) -> None:
    """While a checkpoint is written, and while a line is: the old checkpoint survives, and with room it goes on."""
    run = small_disk / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run]
    code, said = runs.openrs(command, somebody_fills_the_disk_after_step_5)
    assert code == 1, said
    assert "the checkpoint of step 10 could not be written: the disk of" in said
    assert re.search(
        r"about 0\.\d MiB are needed, [\d.]+ [KM]iB are free; step-000005 is complete and untouched", said
    ), said
    assert "make room, and give the same command again" in said
    assert "Traceback" not in said
    assert not list((run / "checkpoints" / ".staging").iterdir())
    ended = runs.attempts(run)[-1]
    assert (ended["exit_code"], ended["reason"][:29]) == (1, "the checkpoint of step 10 cou")

    (small_disk / "filler").unlink()
    code, said = runs.openrs(command, somebody_fills_the_disk_before_the_line_of_step_8)
    assert code == 1, said
    assert "resuming from the checkpoint of step 5" in said
    assert f"the disk of {run} is full" in said
    assert "Traceback" not in said

    (small_disk / "filler").unlink()
    code, said = runs.openrs(command)
    assert code == 0, said
    assert runs.everything(run) == runs.everything(undisturbed)


def test_a_disk_that_is_too_small_is_refused_before_the_start(small_disk: Path, tmp_path: Path) -> None:
    fill(small_disk, leave=1_500_000)
    code, said = runs.openrs(["train", runs.recipe_in(tmp_path), "--run", small_disk / "run"])
    assert code == 2, said
    assert f"the disk of {small_disk / 'run'} has 1.4 MiB free; the run needs 1.9 MiB more" in said
    assert re.search(r"a checkpoint is 0\.\d MiB, and the recipe keeps several", said), said
    assert not (small_disk / "run" / "base").exists()


# --- retention --------------------------------------------------------------------------------------------------------


def test_retention_waits_for_evaluation(tmp_path: Path) -> None:
    """With `evaluation.checkpoints: all` a checkpoint stays until its scores are there, whatever keep_last says."""
    run = tmp_path / "run"
    sets = ["grpo.save_steps=1", "training.keep_last=1", "evaluation.checkpoints=all"]
    command = ["train", runs.recipe_in(tmp_path), "--run", run, *[word for text in sets for word in ("--set", text)]]

    def kept_after(step: int) -> list[int]:
        code, said = runs.openrs([*command, "--until", step])
        assert code == 0, said
        return [checkpoints.step_of(path) for path in checkpoints.list_complete(run / "checkpoints")]

    assert kept_after(3) == [1, 2, 3]
    for step in (1, 3):
        write_json(run / f"eval/step-{step:06d}/scores.json", {})
    assert kept_after(4) == [2, 4]
    assert "step-000001 deleted: newer ones are complete" in (run / "attempts/02/log").read_text()


# --- the judge --------------------------------------------------------------------------------------------------------


def the_judges_are_killed_in_step_2() -> None:
    import psutil

    from openrs.training.trainer import Trainer

    judge = Trainer._calculate_rewards

    def killing(self: Trainer, *args: object) -> object:
        if self.state.global_step == 1:
            judges = [child for child in psutil.Process().children() if "worker.py" in " ".join(child.cmdline())]
            print(f"killed {len(judges)} judges", flush=True)
            for child in judges:
                child.kill()
        return judge(self, *args)

    Trainer._calculate_rewards = killing  # type: ignore[method-assign, assignment]


def test_judging_processes_that_die(tmp_path: Path) -> None:
    """Somebody, the out-of-memory killer say, kills them: others take over, and every completion has its verdict."""
    accuracy = ["--set", "rewards.functions=[{name: accuracy}, {name: 'toy_rewards:spread'}]", "--until", "3"]
    command = ["train", runs.recipe_in(tmp_path), *accuracy, "--run"]
    code, said = runs.openrs([*command, tmp_path / "run"], the_judges_are_killed_in_step_2)
    assert code == 0, said
    assert "killed 1 judges" in said
    undisturbed = runs.start([*command, tmp_path / "undisturbed"])
    assert undisturbed.wait() == 0
    assert runs.rows(tmp_path / "run") == runs.rows(tmp_path / "undisturbed")
    assert [row["judge/completions"] for row in runs.rows(tmp_path / "run")] == [12.0] * 3
    assert [row["judge/crashes"] for row in runs.rows(tmp_path / "run")] == [0.0] * 3


# --- the numbers ------------------------------------------------------------------------------------------------------


def rank_1_has_a_nan_loss_in_step_3() -> None:
    from openrs.training.trainer import Trainer

    runs.fork_ranks()
    loss = Trainer._compute_loss

    def broken(self: Trainer, *args: object) -> object:
        found = loss(self, *args)  # type: ignore[arg-type]
        return found * float("nan") if self.state.global_step == 2 and os.environ["RANK"] == "1" else found

    Trainer._compute_loss = broken  # type: ignore[method-assign, assignment]


def test_a_loss_that_is_nan_on_one_rank_stops_all_and_its_batch_is_kept(tmp_path: Path) -> None:
    import torch

    run = tmp_path / "run"
    sets = ["hardware.processes=2", "grpo.per_device_train_batch_size=6", "grpo.save_steps=2"]
    command = ["train", runs.recipe_in(tmp_path), "--run", run, *[word for text in sets for word in ("--set", text)]]
    code, said = runs.openrs(command, rank_1_has_a_nan_loss_in_step_3)
    assert code == 1, said
    assert "step 3: the loss is" in said
    assert "the next update would make every weight NaN" in said
    folder = Run(run).failures / "step-000003"
    batches = [torch.load(folder / f"batch-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [bool(batch["value"].isnan()) for batch in batches] == [False, True]
    assert batches[1]["inputs"]["completion_ids"].shape[0] == 6
    texts = json.loads((folder / "completions-1.json").read_text())
    assert len(texts["completion"]) == len(texts["id"]) == 12
    assert [path.name for path in checkpoints.list_complete(run / "checkpoints")] == ["step-000002"]
    assert [row["step"] for row in runs.rows(run)] == [1, 2]


def the_gradient_overflows_in_step_3() -> None:
    from openrs.training.trainer import Trainer

    clip = Trainer._clip_grad_norm

    def overflowing(self: Trainer, model: object) -> object:
        if self.state.global_step == 2:
            next(iter(model.parameters())).grad[0, 0] = float("inf")  # type: ignore[attr-defined]
        return clip(self, model)

    Trainer._clip_grad_norm = overflowing  # type: ignore[method-assign]


def test_a_gradient_that_is_no_number_never_reaches_the_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run, "--set", "grpo.save_steps=2", "--until", 4]
    code, said = runs.openrs(command, the_gradient_overflows_in_step_3)
    assert code == 1, said
    assert "step 3: the norm of the gradient is" in said
    assert (Run(run).failures / "step-000003" / "batch-0.pt").is_file()
    code, said = runs.openrs(command)  # a cosmic ray, say: it does not come again
    assert code == 0, said
    assert "resuming from the checkpoint of step 2" in said


# --- weights that are NaN or Inf --------------------------------------------------------------------------------------


def the_optimizer_makes_weights_of(value: float) -> None:
    import torch
    from transformers import TrainerCallback

    from openrs.training.lifecycle import Lifecycle

    assert issubclass(Lifecycle, TrainerCallback)
    end = Lifecycle.on_step_end

    def breaking(self: Lifecycle, args: object, state: Any, control: object, **more: Any) -> None:
        if state.global_step == int(os.environ["BREAK_AT"]):
            with torch.no_grad():
                list(more["model"].parameters())[-1].view(-1)[-1] = value
        end(self, args, state, control, **more)

    Lifecycle.on_step_end = breaking  # type: ignore[method-assign]


def nan_weight() -> None:
    the_optimizer_makes_weights_of(float("nan"))


def inf_weight() -> None:
    the_optimizer_makes_weights_of(float("-inf"))


@pytest.mark.parametrize(("fault", "step"), [(nan_weight, 1), (nan_weight, 2), (nan_weight, 3), (inf_weight, 2)])
def test_weights_that_are_not_finite_end_the_run_and_leave_no_checkpoint(
    tmp_path: Path, fault: Callable[[], None], step: int
) -> None:
    """In a step with a checkpoint (2, and 3, the last), and in one without (1): then before the next generation."""
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run, "--set", "grpo.save_steps=2", "--until", 3]
    code, said = runs.openrs(command, fault, BREAK_AT=str(step))
    assert code == 1, said
    assert re.search(rf"step {step}: 1 (of \d+ weight tensors|weights) are NaN or Inf, first in \S+norm\.weight", said)
    assert "start a new --run with a smaller grpo.learning_rate" in said
    assert "Traceback" not in said
    there = ["step-000002"] if step == 3 else []
    assert [path.name for path in checkpoints.list_complete(run / "checkpoints")] == there
    assert not list((run / "checkpoints" / ".staging").glob("*"))
    assert runs.attempts(run)[-1]["exit_code"] == 1
    code, said = runs.openrs(command)
    assert code == 0, said


def test_the_largest_learning_rate_ends_in_words_or_in_finite_weights(tmp_path: Path) -> None:
    """Larger ones, infinite ones among them, are refused before anything is loaded."""
    command = ["train", runs.recipe_in(tmp_path), "--set", "grpo.max_steps=3", "--set", "grpo.warmup_steps=0"]
    code, said = runs.openrs([*command, "--run", tmp_path / "a", "--set", "grpo.learning_rate=1000"])
    assert code in (0, 1), said
    assert "Traceback" not in said
    assert len(checkpoints.list_complete(tmp_path / "a" / "checkpoints")) == (1 if code == 0 else 0)
    for value in ("1001", "1e300", "1e400"):
        code, said = runs.openrs([*command, "--run", tmp_path / "b", "--set", f"grpo.learning_rate={value}"])
        assert code == 2, said
        assert "grpo.learning_rate: grpo.learning_rate = " in said
        assert not (tmp_path / "b").exists()


def the_second_moment_overflows() -> None:
    from openrs.training.lifecycle import Lifecycle

    end = Lifecycle.on_step_end

    def breaking(self: Lifecycle, args: object, state: Any, control: object, **more: Any) -> None:
        if state.global_step == 2:
            next(iter(more["optimizer"].state.values()))["exp_avg_sq"].view(-1)[0] = float("inf")
        end(self, args, state, control, **more)

    Lifecycle.on_step_end = breaking  # type: ignore[method-assign]


def test_a_state_of_the_optimizer_that_is_not_finite_is_no_checkpoint(tmp_path: Path) -> None:
    """The weights stay finite: they do not move any more."""
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run, "--set", "grpo.save_steps=1", "--until", 2]
    code, said = runs.openrs(command, the_second_moment_overflows)
    assert code == 1, said
    assert re.search(r"step 2: 1 of \d+ tensors of the optimizer's state are NaN or Inf, first in exp_avg_sq", said)
    assert "step-000001 is complete and sound" in said
    assert [path.name for path in checkpoints.list_complete(run / "checkpoints")] == ["step-000001"]
    assert not list((run / "checkpoints" / ".staging").glob("*"))


# --- somebody else ----------------------------------------------------------------------------------------------------


def test_two_processes_on_one_run_directory(tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", runs.recipe_in(tmp_path, "spread_and_stick")
    first = runs.start(["train", recipe, "--run", run], STICK_AT="2")
    first.wait_for(lambda: (run / "metrics.jsonl").is_file() and runs.rows(run))
    before = (run / "manifest.json").read_bytes()
    code, said = runs.openrs(["train", recipe, "--run", run])
    assert code == 2
    assert f"{run} is in use by process {first.process.pid} on {os.uname().nodename} since " in said
    assert "two processes would write over each other's checkpoints" in said
    assert (run / "manifest.json").read_bytes() == before
    first.process.kill()
    assert first.wait() == -signal.SIGKILL
    code, said = runs.openrs(["train", recipe, "--run", run, "--until", 2], STICK_AT="99")
    assert code == 0, said  # the kernel has freed the lock

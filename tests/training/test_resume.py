"""A run that is killed and resumed is the run that was never disturbed, to the last bit."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import runs

pytestmark = pytest.mark.slow


def test_the_undisturbed_run_is_worth_comparing_with(undisturbed: Path) -> None:
    rows = runs.rows(undisturbed)
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert all(row["grad_norm"] > 0 for row in rows)
    assert rows[-1]["kl"] > 0
    assert len({row["loss"] for row in rows}) > 15
    first, second = (tuple(p for row in rows[a : a + 6] for p in row["problems"]) for a in (0, 6))
    assert sorted(first) == sorted(second)
    assert first != second  # an epoch is 6 steps, and each has its own order


# --- ways to die: each runs in the process that trains, before it does ------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_generation_batch_of_step_4() -> None:
    from openrs.training.trainer import Trainer

    judge = Trainer._calculate_rewards

    def dying(self: Trainer, *args: object) -> object:
        return die() if self.state.global_step == 3 else judge(self, *args)

    Trainer._calculate_rewards = dying  # type: ignore[method-assign, assignment]


def die_in_the_line_of_step_9() -> None:
    from openrs.run.files import Journal

    append = Journal.append

    def dying(self: Journal, row: dict[str, object]) -> None:
        if row["step"] == 9:
            os.write(self._file, b'{"step": 9, "loss": 0.12')
            die()
        append(self, row)

    Journal.append = dying  # type: ignore[method-assign, assignment]


def die_while_the_checkpoint_of_step_10_is_written() -> None:
    die_while_the_checkpoint_is_written(10)


def die_while_the_checkpoint_is_written(step: int) -> None:
    from openrs.run import checkpoints

    facts = checkpoints._facts

    def dying(folder: Path, files: list[Path], alive: object) -> object:
        if folder.name == f"checkpoint-{step}":
            next(folder.rglob("*.pt")).write_bytes(b"half")
            die()
        return facts(folder, files, alive)  # type: ignore[arg-type]

    checkpoints._facts = dying  # type: ignore[assignment]


def die_between_checkpoint_and_step_at_the_end_of_an_epoch() -> None:
    """The checkpoint is at step 12; an epoch is 6 steps."""
    from openrs.training.lifecycle import Lifecycle

    save = Lifecycle.on_save

    def dying(self: Lifecycle, args: object, state: object, control: object, **more: object) -> None:
        save(self, args, state, control, **more)
        if state.global_step == 12:  # type: ignore[attr-defined]
            die()

    Lifecycle.on_save = dying  # type: ignore[method-assign]


def die_while_an_old_checkpoint_is_deleted() -> None:
    from openrs.run import checkpoints

    def dying(path: Path) -> None:
        (path / "optimizer.pt").unlink()
        die()

    checkpoints.shutil.rmtree = dying  # type: ignore[attr-defined]


@pytest.mark.limits(processor=900)
def test_killed_everywhere_it_hurts(undisturbed: Path, tmp_path: Path) -> None:
    """One run, six attempts: each of them dies by SIGKILL at its own place and the next one goes on."""
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run, "--set"]
    five, six = [*command, "grpo.save_steps=5"], [*command, "grpo.save_steps=6", "--accept-changes"]

    def killed(command: list[object], fault: object, goes_on_from: int) -> str:
        code, said = runs.openrs(command, fault)  # type: ignore[arg-type]
        assert code == -signal.SIGKILL, said
        assert runs.attempts(run)[-1]["from_step"] == goes_on_from, said
        return said

    killed(five, die_in_the_generation_batch_of_step_4, 0)
    assert not list((run / "checkpoints").glob("step-*"))
    killed(five, die_in_the_line_of_step_9, 0)
    assert not (run / "metrics.jsonl").read_bytes().endswith(b"\n")
    killed(five, die_while_the_checkpoint_of_step_10_is_written, 5)
    assert [p.name for p in (run / "checkpoints").glob("step-*")] == ["step-000005"]
    said = killed(six, die_between_checkpoint_and_step_at_the_end_of_an_epoch, 5)
    assert (
        "checkpoint-10 was being written or deleted when the run was killed: removed"
        in (run / "attempts/04/log").read_text()
    ), said
    killed(six, die_while_an_old_checkpoint_is_deleted, 12)
    code, said = runs.openrs(six)
    assert code == 0, said

    assert runs.everything(run) == runs.everything(undisturbed)
    told = runs.attempts(run)
    assert [attempt["exit_code"] for attempt in told] == [None] * 5 + [0]
    assert "no end was recorded" in told[0]["reason"]
    assert told[3]["accepted"] == [{"setting": "grpo.save_steps", "was": 5, "now": 6}]


# --- wherever a checkpoint falls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(["num_iterations=2"], id="a batch is used for two steps, and the checkpoint is between them"),
        pytest.param(
            ["per_device_train_batch_size=6", "gradient_accumulation_steps=1", "steps_per_generation=2"],
            id="two steps share a batch",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            ["per_device_train_batch_size=6", "gradient_accumulation_steps=3", "steps_per_generation=1"],
            id="a generation a micro-step",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            ["per_device_train_batch_size=6", "gradient_accumulation_steps=3", "steps_per_generation=2"],
            id="a step ends in the middle of a batch",
        ),
    ],
)
def test_checkpoints_inside_a_generation_batch(changes: list[str], tmp_path: Path) -> None:
    def command(run: str) -> list[object]:
        sets = [word for change in ["max_steps=9", "save_steps=20", *changes] for word in ("--set", f"grpo.{change}")]
        return ["train", runs.recipe_in(tmp_path), "--run", tmp_path / run, *sets]

    straight = runs.start(command("straight"))
    code, said = runs.openrs([*command("resumed"), "--until", 5])
    assert code == 0, said
    code, said = runs.openrs(command("resumed"))
    assert code == 0, said
    assert "resuming from the checkpoint of step 5" in said
    assert straight.wait() == 0, straight.text
    assert len(runs.rows(tmp_path / "straight")) == 9
    assert runs.everything(tmp_path / "resumed")["rows"] == runs.everything(tmp_path / "straight")["rows"]
    assert runs.final_state(tmp_path / "resumed") == runs.final_state(tmp_path / "straight")


# --- what must not change ---------------------------------------------------------------------------------------------


def test_another_recipe_or_other_data_are_refused_with_the_difference(tmp_path: Path) -> None:
    data = tmp_path / "sums.jsonl"
    lines = [f'{{"problem": "{n}+{n}", "answer": "{2 * n}"}}\n' for n in range(10, 22)]
    data.write_text("".join(lines))
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run, "--set", f"data.source={data}", "--set"]
    code, said = runs.openrs([*command, "training.stop_after=2"])
    assert code == 0, said
    before = runs.everything(run)

    code, said = runs.openrs([*command, "grpo.learning_rate=0.001"])
    assert code == 2
    assert "made with another recipe" in said
    assert "grpo.learning_rate: 0.0005 -> 0.001" in said or "grpo.learning_rate: 0.0003 -> 0.001" in said
    assert "--accept-changes" in said

    data.write_text("".join(lines).replace('"26"', '"27"'))
    code, said = runs.openrs([*command, "training.stop_after=4"])
    assert code == 2
    was = runs.sha256_of(lines)
    assert f"data.files.sums.jsonl: {was} -> {runs.sha256(data)}" in said
    assert "data.prompts_and_golds_sha256" in said
    assert runs.everything(run) == before
    assert [attempt["exit_code"] for attempt in runs.attempts(run)] == [0, 2]

    code, said = runs.openrs([*command, "training.stop_after=4", "--accept-changes"])
    assert code == 0, said
    accepted = runs.attempts(run)[-1]["accepted"]
    assert {change["setting"] for change in accepted} == {
        "data.files.sums.jsonl",
        "data.prompts_and_golds_sha256",
    }
    assert [row["step"] for row in runs.rows(run)] == [1, 2, 3, 4]


def test_what_has_made_nothing_yet_may_change(tmp_path: Path) -> None:
    """A first try that was refused (too few problems for a step) leaves no run that stands in the way of the second."""
    data = tmp_path / "sums.jsonl"
    data.write_text('{"problem": "1+1", "answer": "2"}\n')
    base, run = tmp_path / "base", tmp_path / "run"
    code, said = runs.openrs(["train", runs.recipe_in(tmp_path), "--run", base, "--until", 1])
    assert code == 0, said
    command = ["train", runs.recipe_in(tmp_path), "--run", run, "--until", 1]
    own = ["--set", "model.name=" + str(base / "base"), "--set", "model.toy=null", "--set"]
    code, said = runs.openrs([*command, *own, f"data.source={data}"])
    assert code == 2
    assert "1 problems are fewer than the 2 of one step" in said
    code, said = runs.openrs([*command, *own, "data.limit=10"])
    assert code == 0, said


# --- two processes ----------------------------------------------------------------------------------------------------


def two_ranks_of_which_the_first_dies_in_the_checkpoint_of_step_12() -> None:
    runs.fork_ranks()
    die_while_the_checkpoint_is_written(12)


def two_ranks_of_which_the_first_dies_in_the_line_of_step_9() -> None:
    runs.fork_ranks()
    die_in_the_line_of_step_9()


def two_ranks_of_which_the_second_dies_in_step_14() -> None:
    from openrs.training.trainer import Trainer

    runs.fork_ranks()
    judge = Trainer._calculate_rewards

    def dying(self: Trainer, *args: object) -> object:
        return die() if self.state.global_step == 13 and os.environ["RANK"] == "1" else judge(self, *args)

    Trainer._calculate_rewards = dying  # type: ignore[method-assign, assignment]


@pytest.mark.limits(processor=900)
@pytest.mark.parametrize(
    "zero", [0, *(pytest.param(stage, marks=pytest.mark.soak) for stage in (1, 2))], ids=["DDP", "ZeRO-1", "ZeRO-2"]
)
def test_two_processes(tmp_path: Path, zero: int) -> None:
    """Killed inside a checkpoint, a line of metrics.jsonl and a generation batch. The last one is in the third epoch,
    and resumed from step 12, exactly the end of the second."""
    sets = ["hardware.processes=2", "grpo.per_device_train_batch_size=6", "grpo.save_steps=6", "grpo.max_steps=16"]
    sets.append(f"hardware.zero_stage={zero}")
    command = ["train", runs.recipe_in(tmp_path), *[word for text in sets for word in ("--set", text)], "--run"]
    run = tmp_path / "run"
    straight = runs.start([*command, tmp_path / "straight"], runs.fork_ranks)

    def killed(fault: Callable[[], None], goes_on_from: int) -> None:
        code, said = runs.openrs([*command, run], fault)
        assert code == 1, said
        assert runs.attempts(run)[-1]["from_step"] == goes_on_from, said

    killed(two_ranks_of_which_the_first_dies_in_the_checkpoint_of_step_12, 0)
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-000006"]
    assert (run / "checkpoints/.staging/checkpoint-12").is_dir()
    killed(two_ranks_of_which_the_first_dies_in_the_line_of_step_9, 6)
    assert not (run / "metrics.jsonl").read_bytes().endswith(b"\n")
    killed(two_ranks_of_which_the_second_dies_in_step_14, 6)
    code, said = runs.openrs([*command, run], runs.fork_ranks)
    assert code == 0, said
    assert "resuming from the checkpoint of step 12" in said
    assert straight.wait() == 0, straight.text
    assert runs.everything(run) == runs.everything(tmp_path / "straight")
    assert len(runs.rows(run)) == 16
    assert "rng_state_1.pth" in runs.final_state(run)


@pytest.mark.soak
def test_two_processes_of_torchrun(tmp_path: Path) -> None:
    """The real launcher: worker 1 gets SIGKILL from outside, then SIGTERM; both attempts are gone on from."""
    run = tmp_path / "run"
    sets = ["hardware.processes=2", "grpo.per_device_train_batch_size=6"]
    command = ["train", runs.recipe_in(tmp_path), *[word for text in sets for word in ("--set", text)], "--run"]
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    straight = runs.start([*command, tmp_path / "straight"], **environment)
    assert straight.wait() == 0, straight.text
    for attempt, (number, code) in enumerate([(signal.SIGKILL, 1), (signal.SIGTERM, 75)], 1):
        launched = runs.start([*command, run], **environment)
        launched.wait_for(lambda attempt=attempt: len(runs.rows(run)) >= 6 * attempt)  # type: ignore[misc]
        os.kill(int((run / f"attempts/{attempt:02d}/worker-1.pid").read_text()), number)
        assert launched.wait() == code, launched.text
    code, said = runs.openrs([*command, run], **environment)
    assert code == 0, said
    assert runs.everything(run) == runs.everything(tmp_path / "straight")


def test_the_order_of_an_epoch_needs_no_epochs_before_it() -> None:
    """Ours goes through the data as TRL's does, and starts at any epoch."""
    from trl.trainer.utils import RepeatSampler

    from openrs.training.trainer import EpochSampler

    shape = (range(10), 3, 4, 2, True, 42)
    theirs, ours = RepeatSampler(*shape), EpochSampler(*shape)
    orders = [list(theirs) for _ in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    for epoch in (2, 0, 3, 3, 1):
        ours.epoch = epoch
        assert list(ours) == orders[epoch]

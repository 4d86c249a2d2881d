"""Asked to stop: everybody at the same step, one checkpoint, exit code 75; a second signal at once."""

import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import runs

from openrs.run import checkpoints, signals
from openrs.run.signals import Deadline

pytestmark = pytest.mark.slow


def steps(run: Path) -> int:
    """Steps that metrics.jsonl has so far."""
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_at_the_next_step_and_the_run_goes_on(
    number: signal.Signals, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run]
    launched = runs.start(command)
    launched.wait_for(lambda: steps(run) >= 3)
    os.kill(launched.process.pid or 0, number)
    assert launched.wait() == 75, launched.text
    last = steps(run)
    newest, said = checkpoints.latest_resumable(run / "checkpoints")
    assert (newest, said) == (run / "checkpoints" / f"step-{last:06d}", [])
    assert 3 <= last < 20
    name = signals.name(number)
    assert f"{name}: finishing this step, then a checkpoint, then the end" in launched.text
    ended = runs.attempts(run)[-1]
    assert ended["exit_code"] == 75
    assert ended["reason"].startswith(f"{name}: the checkpoint of step {last} is complete, ")
    assert re.search(r" after the signal \(written in \d", ended["reason"])

    code, said_after = runs.openrs(command)
    assert code == 0, said_after
    assert runs.everything(run) == runs.everything(undisturbed)


def data_that_never_comes() -> None:
    from openrs.training import train as grpo

    def waiting(*_: object, **__: object) -> None:
        print("waiting for data", flush=True)
        time.sleep(600)

    grpo.problems_of = waiting  # type: ignore[assignment]


def test_before_the_first_step_a_signal_ends_at_once(tmp_path: Path) -> None:
    recipe = runs.recipe_in(tmp_path)
    launched = runs.start(["train", recipe, "--run", tmp_path / "run"], data_that_never_comes)
    launched.wait_for(lambda: "waiting for data" in launched.text)
    os.kill(launched.process.pid or 0, signal.SIGTERM)
    assert launched.wait() == 75, launched.text
    assert "stopped by SIGTERM; the same command resumes from what is done" in launched.text
    assert runs.attempts(tmp_path / "run")[-1]["exit_code"] == 75


def a_clock_in_a_file() -> None:
    """Signals come at the time that the file CLOCK says, and each of them adds a dot to the file CLOCK.asked."""
    clock = Path(os.environ["CLOCK"])

    def monotonic() -> float:
        with clock.with_suffix(".asked").open("a") as asked:
            asked.write(".")
        return float(clock.read_text())

    signals.time = SimpleNamespace(monotonic=monotonic, time=time.time)  # type: ignore[assignment]


def test_a_second_signal_leaves_a_step_that_never_ends(tmp_path: Path) -> None:
    recipe, run = runs.recipe_in(tmp_path, "spread_and_stick"), tmp_path / "run"
    clock = tmp_path / "clock"
    clock.write_text("0")
    command = ["train", recipe, "--run", run, "--set", "grpo.save_steps=2"]
    launched = runs.start(command, a_clock_in_a_file, STICK_AT="4", CLOCK=str(clock))
    launched.wait_for(lambda: steps(run) == 3)
    pid = launched.process.pid or 0
    os.kill(pid, signal.SIGTERM)
    launched.wait_for(lambda: "finishing this step" in launched.text)
    heard = clock.with_suffix(".asked").stat().st_size
    os.kill(pid, signal.SIGTERM)  # an echo: launchers and terminals tell the same wish twice
    launched.wait_for(lambda: clock.with_suffix(".asked").stat().st_size > heard)
    clock.write_text(str(1.5 * signals.ECHO_SECONDS))
    os.kill(pid, signal.SIGTERM)
    assert launched.wait() == 75
    assert "SIGTERM again: leaving at once; the last complete checkpoint stays" in launched.text
    assert [path.name for path in checkpoints.list_complete(run / "checkpoints")] == ["step-000002"]


def the_line_to_the_terminal_breaks_in_step_3() -> None:
    """As when an ssh connection ends: SIGHUP, and nobody reads the output any more."""
    from openrs.training.lifecycle import Lifecycle

    step_end = Lifecycle.on_step_end

    def breaking(self: Lifecycle, args: object, state: object, control: object, **more: object) -> None:
        if state.global_step == 3:  # type: ignore[attr-defined]
            reader, writer = os.pipe()
            os.dup2(writer, 1)
            os.close(reader)
            os.kill(os.getpid(), signal.SIGHUP)
        step_end(self, args, state, control, **more)

    Lifecycle.on_step_end = breaking  # type: ignore[method-assign]


def test_a_terminal_that_goes_away(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run]
    code, said = runs.openrs(command, the_line_to_the_terminal_breaks_in_step_3)
    assert code == 75, said
    assert checkpoints.latest_resumable(run / "checkpoints")[0] == run / "checkpoints" / "step-000003"
    assert runs.attempts(run)[-1]["reason"].startswith("SIGHUP: the checkpoint of step 3 is complete")


def test_a_signal_on_one_rank_stops_all_at_the_same_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    sets = [
        "--set",
        "hardware.processes=2",
        "--set",
        "grpo.per_device_train_batch_size=6",
        "--set",
        "grpo.max_steps=60",
    ]
    launched = runs.start(["train", runs.recipe_in(tmp_path), "--run", run, *sets], runs.fork_ranks)
    launched.wait_for(lambda: steps(run) >= 2)
    os.kill(int((run / "attempts/01/worker-1.pid").read_text()), signal.SIGTERM)
    assert launched.wait() == 75, launched.text
    last = steps(run)
    assert 2 <= last < 60
    assert checkpoints.latest_resumable(run / "checkpoints")[0] == run / "checkpoints" / f"step-{last:06d}"
    outcomes = [json.loads((run / f"attempts/01/outcome-{rank}.json").read_text()) for rank in (0, 1)]
    assert [outcome["code"] for outcome in outcomes] == [75, 75]
    assert runs.attempts(run)[-1]["reason"].startswith(f"SIGTERM: the checkpoint of step {last} is complete")


def test_deadlines_leave_a_checkpoint_and_each_attempt_gets_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run, "--set"]
    code, said = runs.openrs([*command, "training.max_hours=0.00001"])
    assert code == 75, said
    assert "the deadline is near (training.max_hours or must_save_by): the checkpoint of step 1 is complete" in said
    code, said = runs.openrs([*command, "training.must_save_by=2026-01-01T00:00:00Z"])
    assert code == 75, said
    assert checkpoints.latest_resumable(run / "checkpoints")[0] == run / "checkpoints" / "step-000002"
    assert [attempt["exit_code"] for attempt in runs.attempts(run)] == [75, 75]
    code, said = runs.openrs([*command, "training.stop_after=3", "--set", "training.max_hours=24"])
    assert code == 0, said


# --- the arithmetic of deadlines, with a clock of our own -------------------------------------------------------------


class Clock:
    """Stands for time.time and time.monotonic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = 1_800_000_000.0, 500.0
        monkeypatch.setattr(signals.time, "time", lambda: self.wall)
        monkeypatch.setattr(signals.time, "monotonic", lambda: self.steady)

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


def test_a_day_with_steps_of_150_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    deadline = Deadline(24.0, None, clock.wall - 300)  # five minutes went by until the first step
    assert deadline.left == pytest.approx(24 * 3600 - 300)
    done = 0
    while not deadline.near():
        took = 400 if done % 10 == 9 else 150
        clock.pass_(took)
        deadline.stepped(took)
        if done % 10 == 9:
            clock.pass_(20)
            deadline.saved(20)
        done += 1
    assert deadline.reserve == 400 + 3 * 20
    assert 60 + 150 - 400 < deadline.left < 460  # one more of the long steps might not have fitted
    assert deadline.left > 0


def test_a_wall_clock_that_jumps_moves_only_what_is_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    hours, at = Deadline(2.0, None, clock.wall), Deadline(None, "2027-01-15T08:00:00+01:00", clock.wall)
    before = at.left
    clock.wall += 86_400
    assert hours.left == 7200
    assert at.left == before - 86_400
    assert Deadline(2.0, None, clock.wall + 3600).left == 7200  # started in the future: the clock was set back since


def test_a_moment_without_an_offset_is_utc() -> None:
    assert signals.moment("2026-11-22T08:00:00") == signals.moment("2026-11-22T09:00:00+01:00")
    assert Deadline(None, None, 0.0).left == float("inf")
    assert not Deadline(None, None, 0.0).near()

"""No progress: the stacks of all processes are in the run, and it ends with exit code 1, resumable."""

import os
import re
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
import runs
from fixed import Recorded, fixed_trainer, parity_recipe
from waiting import until

from openrs.run import checkpoints
from openrs.training import disk, watchdog
from openrs.training.lifecycle import CONSTRUCTION
from openrs.training.watchdog import FIRST, Watchdog

pytestmark = pytest.mark.slow


def ten_hours_pass_when_it_sticks() -> None:
    """The watchdog's clock jumps once the reward function sticks, and in several processes once rank 0 waits for it."""

    def monotonic() -> float:
        stuck = Path(os.environ["STUCK"]).exists() and (os.environ.get("RANK") is None or waits_in_all_gather())
        return time.monotonic() + (36_000 if stuck else 0)

    def until_all_have_written_their_stacks(_: float) -> None:
        stacks = list(Path(os.environ["STUCK"]).parent.glob("run/attempts/01/stacks-rank*.txt"))
        until(lambda: all(path.stat().st_size for path in stacks))

    watchdog.time = SimpleNamespace(  # type: ignore[assignment]
        monotonic=monotonic, sleep=until_all_have_written_their_stacks
    )


def waits_in_all_gather() -> bool:
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return any("all_gather" in entry.name for entry in traceback.extract_stack(frame))


def forked_ranks_and_ten_hours() -> None:
    runs.fork_ranks()
    ten_hours_pass_when_it_sticks()


def test_a_stuck_reward_function(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path, "spread_and_stick"), "--run", run, "--set", "grpo.save_steps=2"]
    code, said = runs.openrs(command, ten_hours_pass_when_it_sticks, STICK_AT="4", STUCK=str(tmp_path / "stuck"))
    assert code == 1, said
    stacks = (run / "attempts/01/stacks-rank0.txt").read_text()
    assert "in spread_and_stick" in stacks
    assert "in train_from" in stacks
    assert re.search(r"no progress for 3[67]\d\d\d s \(a step usually takes \d", said)
    assert f"The stacks of all processes are in {run}/attempts/01" in said
    ended = runs.attempts(run)[-1]
    assert ended["exit_code"] == 1
    assert "something hangs" in ended["reason"]

    code, said = runs.openrs([*command, "--until", 5], STICK_AT="99")
    assert code == 0, said
    assert "resuming from the checkpoint of step 2" in said
    assert not (run / "attempts/02/stacks-rank0.txt").exists()  # a sound attempt leaves none


def test_a_rank_that_waits_alone_in_a_collective(tmp_path: Path) -> None:
    """Rank 1's reward never returns; rank 0 waits for it in a gather. The stacks of both show who waits for whom."""
    run = tmp_path / "run"
    sets = ["--set", "hardware.processes=2", "--set", "grpo.per_device_train_batch_size=6"]
    command = ["train", runs.recipe_in(tmp_path, "spread_and_stick"), "--run", run, *sets]
    places = {"STICK_AT": "3", "STICK_RANK": "1", "STUCK": str(tmp_path / "stuck")}
    code, said = runs.openrs(command, forked_ranks_and_ten_hours, **places)
    assert code == 1, said
    waiting, stuck = ((run / f"attempts/01/stacks-rank{rank}.txt").read_text() for rank in (0, 1))
    assert "in spread_and_stick" not in waiting
    assert "in all_gather" in waiting
    assert "in spread_and_stick" in stuck
    assert "something hangs" in runs.attempts(run)[-1]["reason"]


def stuck_in_construction_for_ten_hours() -> None:
    """As the first collective would be, between GPUs that cannot write to each other."""
    from trl import GRPOTrainer

    ten_hours_pass_when_it_sticks()

    def waits_for_everyone(*_: object, **__: object) -> None:
        Path(os.environ["STUCK"]).touch()
        while True:
            time.sleep(0.05)

    GRPOTrainer.__init__ = waits_for_everyone


def test_a_hang_in_the_trainers_construction(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run]
    code, said = runs.openrs(command, stuck_in_construction_for_ten_hours, STUCK=str(tmp_path / "stuck"))
    assert code == 1, said
    assert "in waits_for_everyone" in (run / "attempts/01/stacks-rank0.txt").read_text()
    assert "something hangs" in runs.attempts(run)[-1]["reason"]


def test_a_checkpoint_gets_time_by_its_bytes_and_a_sign_of_life_for_every_file(tmp_path: Path) -> None:
    recorded = Recorded()
    trainer = fixed_trainer(parity_recipe(), tmp_path, recorded.prompt_ids[:6], [0.0] * 6)
    (tmp_path / "checkpoints").mkdir()
    allowed: list[float] = []
    trainer._expect = allowed.append
    trainer.args.save_only_model = True  # there is no optimizer yet
    trainer._save_checkpoint(trainer.model, None)
    (place,) = checkpoints.list_complete(tmp_path / "checkpoints")
    files = checkpoints.read_manifest(place)["files"]
    weights = sum(value.numel() for value in trainer.model.parameters())
    assert len(allowed) == 1 + len(files) + 1  # before the writing, after each file's hash, and model.safetensors' NaN
    assert set(allowed) == {600 + 16 * weights / 20e6}
    assert 16 * weights > checkpoints.bytes_of(place)


def test_26_gib_at_50_mb_a_second_are_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=time.sleep)
    monkeypatch.setattr(watchdog, "time", clock)
    dog = Watchdog(tmp_path, rank=0, siblings=[], factor=10, least=600, say=print)
    try:
        dog.beat()
        size = 16 * 1.777e9
        dog.expect(600 + disk.slowest(size))
        assert dog.limit > 600 + 2 * size / 50e6  # written, and read again for its hash
        dog.alive()
        assert dog.limit == 600
        dog.expect(CONSTRUCTION)
        assert dog.limit == CONSTRUCTION < 1800  # before NCCL's own
    finally:
        dog.stop()


@pytest.mark.parametrize("lost", ["file", "folder", "replaced by a folder"])
def test_a_lost_file_of_stacks_does_not_fail_a_finished_run(tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "attempt"
    folder.mkdir()
    watchdog = Watchdog(folder, rank=0, siblings=[], factor=10, least=600, say=print)
    watchdog.stacks.unlink()
    if lost == "folder":
        folder.rmdir()
    elif lost == "replaced by a folder":
        watchdog.stacks.mkdir()
    watchdog.stop()


HELD = """
import ctypes, sys, time
from pathlib import Path
from openrs.training import watchdog
watchdog.LATER = 0.5
def a_c_function_that_keeps_the_gil():
    dog = watchdog.Watchdog(Path(sys.argv[1]), rank=0, siblings=[], factor=10, least=0.1, say=print)
    ctypes.PyDLL(None).sleep(600)
a_c_function_that_keeps_the_gil()
"""


def test_code_that_lets_no_other_thread_run(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HELD, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "in a_c_function_that_keeps_the_gil" in (tmp_path / "stacks-rank0.txt").read_text()


PATIENT = """
import sys, time
from pathlib import Path
from openrs.training.watchdog import Watchdog
dog = Watchdog(Path(sys.argv[1]), rank=1, siblings=[], factor=10, least=600, say=print)
def waits_for_the_other(): time.sleep(600)
print("watching", flush=True)
waits_for_the_other()
"""


def test_the_first_to_notice_gets_the_stacks_of_its_siblings(tmp_path: Path) -> None:
    patient = subprocess.Popen([sys.executable, "-c", PATIENT, tmp_path], stdout=subprocess.PIPE)
    assert patient.stdout is not None
    assert patient.stdout.readline() == b"watching\n"
    hurried = HELD.replace("siblings=[]", f"siblings=[{patient.pid}]").replace("LATER = 0.5", "LATER = 600")
    hurried = hurried.replace("ctypes.PyDLL(None).sleep", "time.sleep")
    done = subprocess.run([sys.executable, "-c", hurried, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"The stacks of all processes are in {tmp_path}" in done.stdout
    assert "in a_c_function_that_keeps_the_gil" in (tmp_path / "stacks-rank0.txt").read_text()
    until(lambda: "in waits_for_the_other" in (tmp_path / "stacks-rank1.txt").read_text())
    patient.kill()
    patient.wait()
    patient.stdout.close()


def test_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dog = Watchdog(tmp_path, rank=3, siblings=[], factor=10, least=600, say=print)
    try:
        assert dog.limit == FIRST * 600
        dog._seconds.extend([150.0, 140.0, 900.0])
        assert dog.limit == 1500
        dog._seconds.clear()
        dog._seconds.extend([1.0, 2.0, 3.0])
        assert dog.limit == 600
    finally:
        dog.stop()
    assert list(tmp_path.iterdir()) == []

"""One launch: how it ends is in the manifest, whatever ended it."""

import errno
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrs.cli.main import main
from openrs.config.load import load
from openrs.errors import Interrupted, RunFailure, UserError
from openrs.run.attempt import attempt, is_mutable
from openrs.run.directory import Run
from openrs.run.disk_faults import FAULTS


def last(run: Run) -> tuple[int, str]:
    ended = json.loads(run.manifest.read_text())["attempts"][-1]
    return ended["exit_code"], ended["reason"]


@pytest.mark.parametrize(
    ("error", "raised", "code", "reason"),
    [
        (None, None, 0, "done"),
        (UserError("bad data", "why", "fix"), UserError, 2, "bad data\n  why: why\n  fix: fix"),
        (RunFailure("the server is gone"), RunFailure, 1, "the server is gone"),
        (Interrupted("at step 5"), Interrupted, 75, "at step 5"),
        (KeyboardInterrupt(), KeyboardInterrupt, 75, "Ctrl-C"),
        (ZeroDivisionError("x hf_abcdefghijk"), ZeroDivisionError, 1, "ZeroDivisionError: x [hidden]"),
        (SystemExit(3), SystemExit, 1, "SystemExit: 3"),
        (PermissionError(errno.EACCES, "denied", "f"), PermissionError, 1, "PermissionError: [Errno 13] denied: 'f'"),
        *((OSError(number, os.strerror(number), "f"), RunFailure, 1, None) for number in FAULTS),
    ],
)
def test_every_way_to_end(
    tmp_path: Path, error: BaseException | None, raised: type[BaseException] | None, code: int, reason: str | None
) -> None:
    run = Run(tmp_path / "run")

    def go() -> None:
        with attempt(load("demo"), run, ["openrs"]) as progress:
            progress.note("at work")
            if error is not None:
                raise error

    if raised is None:
        go()
    else:
        with pytest.raises(raised):
            go()
    found = last(run)
    assert found[0] == code
    assert found[1] == reason if reason is not None else f"disk of {run.path}" in found[1]
    log = (run.path / "attempts/01/log").read_text()
    assert "at work\n" in log
    assert f"ended with exit code {code}: {found[1].splitlines()[0]}" in log


def test_a_signal_ends_it_and_the_old_handlers_come_back(tmp_path: Path) -> None:
    run, before = Run(tmp_path / "run"), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"), attempt(load("demo"), run):
        os.kill(os.getpid(), signal.SIGTERM)
    assert last(run) == (75, "stopped by SIGTERM; the same command resumes from what is done")
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_another_recipe(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with attempt(load("demo", ["grpo.seed=1"]), run):
        pass
    with attempt(load("demo", ["grpo.seed=2"]), run):  # nothing was made with the first
        run.metrics.write_text('{"step": 1}\n')
    with (
        pytest.raises(UserError, match=r"made with another recipe:\n    grpo.seed: 2 -> 3\n") as raised,
        attempt(load("demo", ["grpo.seed=3"]), run),
    ):
        raise AssertionError
    assert "--accept-changes" in str(raised.value)
    assert len(run.attempts()) == 2
    with attempt(load("demo", ["grpo.seed=2", "training.max_hours=3", "training.stop_after=9"]), run):
        pass
    with attempt(load("demo", ["grpo.seed=3"]), run, accept_changes=True):
        pass
    known = json.loads(run.manifest.read_text())
    assert known["attempts"][-1]["accepted"] == [{"setting": "grpo.seed", "was": 2, "now": 3}]
    assert "accepted" not in known["attempts"][-2]


@pytest.mark.parametrize(
    "change",
    [
        "monitors.kl.above=0.7",
        "monitors.length.stop_above=900.5",
        "monitors.canary.max_gap=0.2",
        "hardware.price_per_gpu_hour=1.25",
        "training.keep_last=5",
        "training.keep_every=200",
        "training.old_weights_only=true",
        "training.completions_every=7",
        "training.completions_kept=3",
        "grpo.vllm_server_timeout=1800",
    ],
)
def test_advice_that_is_followed_is_not_refused(tmp_path: Path, change: str) -> None:
    """Alarms and the disk's messages say to change these: the same command takes the change, and records it."""
    run = Run(tmp_path / "run")
    with attempt(load("demo"), run):
        run.metrics.write_text('{"step": 1}\n')
    with attempt(load("demo", [change]), run):
        pass
    (adjusted,) = json.loads(run.manifest.read_text())["attempts"][-1]["adjusted"]
    assert adjusted["setting"] == change.partition("=")[0]
    assert str(adjusted["now"]).lower() == change.partition("=")[2]


def test_what_changes_the_weights_is_not_mutable() -> None:
    keys = [key for key, _ in flat(load("demo").model_dump()) if is_mutable(key)]
    assert {key.partition(".")[0] for key in keys} == {"training", "monitors", "hardware"}
    assert not is_mutable("monitorsx")
    assert not is_mutable("training.keep_last.x")


def flat(tree: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_a_second_attempt_at_the_same_time(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with attempt(load("demo"), run):
        with pytest.raises(UserError, match="is in use by process"), attempt(load("demo"), run):
            raise AssertionError
        assert len(run.attempts()) == 1


def test_halves_of_files_that_a_kill_left_are_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".manifest.json.123.part").write_text('{"att')
    with attempt(load("demo"), Run(tmp_path)):
        pass
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"])
def test_no_secret_gets_into_a_run(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted in the environment and on the command line, and then in every kind of message there is."""
    secret = "planted-and-never-to-be-seen"
    monkeypatch.setenv(name, secret)
    run = Run(tmp_path / "run")
    command = ["openrs", f"--header=Bearer {secret}"]

    def go() -> None:
        with attempt(load("demo"), run, command) as progress:
            progress.say(f"asking the hub with {secret}")
            logging.getLogger("huggingface_hub").warning("401 for token %s", secret)
            raise ConnectionError(f"denied: {secret}")

    with pytest.raises(ConnectionError):
        go()
    assert secret not in capsys.readouterr().out
    for path in run.path.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert "[hidden]" in (run.path / "attempts/01/libraries.log").read_text()
    assert last(run) == (1, "ConnectionError: denied: [hidden]")


def test_exit_codes_reach_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from openrs.training import launch

    run = str(tmp_path / "run")
    for error, code in ((UserError("r"), 2), (RunFailure("f"), 1), (Interrupted("i"), 75)):

        def ends(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(launch, "train", ends)
        assert main(["train", "demo", "--run", run]) == code
        assert capsys.readouterr().err == f"openrs train: {error}\n"

"""Child processes that start, record how they ended, and never outlive the run. Never imports torch.

A worker's exit code does not survive torchrun (it turns every failure into 1), so each worker leaves its outcome as a
file in the attempt's folder, and the parent makes it its own.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from openrs.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    ExplainedError,
    Interrupted,
    RunFailure,
    UserError,
)
from openrs.run.confined import open_appending
from openrs.run.files import last_lines, write_json

_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = "OPENRS_PARENT"


def die_with_parent(parent: int | None = None) -> None:
    """Let the kernel kill this process when the one that started it is gone, SIGKILL included (Linux; else nothing).

    A run's lock is free as soon as its holder is dead: nothing may then go on writing into the run. Who started this
    process is `parent`, or stands in OPENRS_PARENT (process_supervisor.py sets it); without them, it is whoever is the
    parent now, which may well be process 1: torchrun is that in a container.
    """
    if sys.platform != "linux":
        return
    parent = parent or int(os.environ.get(PARENT) or os.getppid())
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before we asked
        sys.stderr.write(f"process {os.getpid()} ends: process {parent}, which started it, is gone\n")
        sys.stderr.flush()
        os._exit(EXIT_FAILED)


class Child:
    """A command that runs as our child, with everything that it starts in its process group.

    It has a session of its own, so that Ctrl-C in a terminal reaches only us; and it ends when we do, however we do
    (process_supervisor.py).

    Args:
        environment: on top of ours.
        log: gets its stderr, appended; its stdout is ours, or goes there as well (`all_to_log`).
        grace: seconds between SIGTERM and SIGKILL when it has to end; 0: SIGKILL at once.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        all_to_log: bool = False,
        grace: float = 0.0,
    ) -> None:
        self._grace = grace
        supervisor = Path(__file__).with_name("process_supervisor.py")
        with os.fdopen(open_appending(log), "ab") as file:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(supervisor), str(grace), *command],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=file if all_to_log else None,
                stderr=file,
                start_new_session=True,
            )

    def wait(self, seconds: float = 0.0) -> int | None:
        """Its exit code, 128 + N after a signal N; None when it still runs after `seconds`."""
        try:
            return self._supervisor.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End it and its group; returns when they are gone."""
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
        self._supervisor.wait(timeout=self._grace + 30.0)


def free_port() -> int:
    """A TCP port that nobody has on 127.0.0.1 right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def worker_pids(attempt: Path) -> list[int]:
    """Process numbers of the training processes on this machine that torchrun has started for an attempt."""
    return [int(path.read_text()) for path in attempt.glob("worker-*.pid")]


def signal_workers(attempt: Path, number: int, signalled: Collection[int] = ()) -> set[int]:
    """Send a signal to the training processes of an attempt, but those `signalled` already; returns those it reached.

    Not to torchrun: it would kill them after 30 s, in the middle of a step.
    """
    reached = set()
    for pid in worker_pids(attempt):
        if pid not in signalled:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            reached.add(pid)
    return reached


def rank() -> int:
    """This process's number among those that train (torchrun's RANK); 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one worker ended. `what`, `why` and `fix` as in ExplainedError; any other error has only `what`."""

    rank: int
    code: int
    what: str = ""
    why: str = ""
    fix: str = ""
    time: float = 0.0


def outcome_of(error: BaseException) -> Outcome:
    """What an exception that ended this worker means for the run."""
    number, now = rank(), time.time()
    match error:
        case ExplainedError():
            return Outcome(number, error.exit_code, error.what, error.why, error.fix, now)
        case Interrupted() | KeyboardInterrupt():
            return Outcome(number, EXIT_INTERRUPTED, str(error) or "Ctrl-C", time=now)
        case SystemExit():
            code = error.code if isinstance(error.code, int) else EXIT_FAILED
            return Outcome(number, code, f"left with exit code {error.code}", time=now)
        case _:
            return Outcome(number, EXIT_FAILED, f"{type(error).__name__}: {error}", time=now)


def write_outcome(attempt: Path, outcome: Outcome) -> None:
    write_json(attempt / f"outcome-{outcome.rank}.json", asdict(outcome))


def outcomes(attempt: Path) -> list[Outcome]:
    """Of the workers that have ended, the earliest first. One that was killed leaves none."""
    ended = [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in attempt.glob("outcome-*.json")]
    return sorted(ended, key=lambda outcome: outcome.time)


def raise_first(attempt: Path, code: int, log: Path) -> None:
    """Raise what ended the workers of an attempt as if it had happened here. `code` is torchrun's own.

    The earliest counts: what ended the others followed from it.
    """
    first = next((outcome for outcome in outcomes(attempt) if outcome.code), None)
    if first is None and code:
        stacks = [path for path in attempt.glob("stacks-*") if path.stat().st_size]
        output = "".join(f"\n  | {line}" for line in last_lines(log))
        raise RunFailure(
            f"the training processes ended with exit code {code}, and none recorded why{output}",
            f"something hung: {stacks[0]} shows where" if stacks else "something killed them: for memory, perhaps",
            f"their output: {log}",
        )
    if first is None:
        return
    if first.code == EXIT_INTERRUPTED:
        raise Interrupted(first.what)
    if first.code == EXIT_REFUSED:
        raise UserError(first.what, first.why, first.fix)
    where = f"training process {first.rank}: {first.what}"
    raise RunFailure(where, first.why, first.fix or f"the output of all processes: {log}")

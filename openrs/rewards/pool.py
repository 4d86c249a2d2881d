"""The judge's child processes as the parent sees them: start, hand over an item, hear the verdict, kill in time.

New programs (worker.py, run by its path), not forks and not multiprocessing: safe beside torch and CUDA, and the
caller's __main__ is never run again. The parent alone keeps the time: a worker that computes in C hears no alarm, but
dies of SIGKILL.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrs.errors import UserError

START_LIMIT = 120.0  # seconds until a worker has imported what it needs; 0.5 s on a quiet machine
READ_AT_ONCE = 65_536
WORKER_DIED = "lost"  # the verdict on an item whose worker was ended by somebody else: it deserves another worker
# All that a worker gets of the environment: it reads what a model wrote, so it has no business with tokens and keys.
INHERITED = ["PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"]
INHERITED += ["VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"]
# One thread each: stacks of unused threads fill the address space. A fixed hash seed: the same verdict every time.
ADDED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


class Worker:
    """One child process: starting, idle, busy with the item number `item`, or gone. While it is busy it may hold one
    more, number `queued`, so that it need not wait for us in between; that one's clock begins when `item` is done.

    Args:
        memory_bytes: its address space.
        seconds: wall clock for one item; the worker itself only gets a limit on processor time from it, a little later.
    """

    def __init__(self, memory_bytes: int, seconds: float) -> None:
        program = Path(__file__).with_name("worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(program), str(os.getpid()), str(memory_bytes), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us; and what a worker may start dies with its group
            env={name: os.environ[name] for name in INHERITED if name in os.environ} | ADDED,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._answer = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._ask, False)
        os.set_blocking(self._answer, False)
        self._unsent = memoryview(b"")
        self._received = bytearray()
        self._seconds = seconds
        self._began = time.monotonic()
        self.ready = False
        self.gone = False
        self.item: int | None = None
        self.queued: int | None = None

    @property
    def deadline(self) -> float:
        """When it is killed, by time.monotonic(); an idle worker has no deadline."""
        if not self.ready:
            return self._began + START_LIMIT
        return float("inf") if self.item is None else self._began + self._seconds

    def give(self, number: int, item: Mapping[str, str]) -> None:
        """Hand over an item: gold, completion and rule. Whatever text is in them, one line of ASCII goes over."""
        if self.item is None:
            self.item, self._began = number, time.monotonic()
        else:
            self.queued = number
        self._unsent = memoryview(bytes(self._unsent) + json.dumps(item).encode("ascii") + b"\n")
        self._send()

    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> int:
        """Kill it, with all that it may have started. Returns its exit status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone already (macOS: of a zombie)
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self.gone = True
        return status

    def reply(self) -> dict[str, Any] | None:
        """The verdict on its item, once there is one: the worker's own (worker.py), `timeout`, `crash` or WORKER_DIED.
        Never blocks.

        Raises:
            UserError: what it has to import is not installed.
        """
        self._send()
        if self._receive() is False:
            return self._dead()
        line, newline, rest = self._received.partition(b"\n")
        if newline:
            self._received = rest
            return self._heard(json.loads(line))
        if time.monotonic() >= self.deadline:
            self.end()
            return self._verdict("timeout") if self.ready else None
        return None

    @property
    def has_more(self) -> bool:
        """Whether another answer came with the last: the pipe will not tell of it again."""
        return b"\n" in self._received

    def _verdict(self, verdict: str, error: str = "") -> dict[str, Any]:
        return {"verdict": verdict, "gold": "", "answer": "", "seconds": time.monotonic() - self._began, "error": error}

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # later; its death is heard at the other pipe
            while self._unsent:
                self._unsent = self._unsent[os.write(self._ask, self._unsent) :]

    def _receive(self) -> bool:
        """Read what is there. False at the end of its output, when nothing is left to be read."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._answer, READ_AT_ONCE):
                self._received += data
            return b"\n" in self._received
        return True

    def _heard(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if "missing" in message:
            self.end()
            raise UserError(
                f"the judge can't start: {message['missing']}",
                "answers are compared by math-verify, and by lighteval's metric in evaluations",
                "pip install 'openrs[train]' (or the lock file of your machine, in locks/)",
            )
        if "ready" in message:
            self.ready = True
            return None
        self.item, self.queued, self._began = self.queued, None, time.monotonic()
        if message["should_recycle"]:
            self.end()
        return message

    def _dead(self) -> dict[str, Any] | None:
        busy_for = time.monotonic() - self._began
        status = self.end()
        if not self.ready or self.item is None:
            return None
        if status == -signal.SIGXCPU:  # it worked past its clock while we were held up ourselves
            return self._verdict("timeout")
        # Ended from outside: by the out-of-memory killer, or by the kernel because the thread that started it has ended
        # (that is how Linux counts a parent). Not the item's doing, so try again, unless that could take longer than
        # 1.5 x the limit.
        if status in (-signal.SIGTERM, -signal.SIGKILL) and busy_for < self._seconds / 2:
            return self._verdict(WORKER_DIED)
        return self._verdict("crash", f"its worker ended with status {status}")

    def watch(self, selector: selectors.BaseSelector) -> None:
        selector.register(self._answer, selectors.EVENT_READ)
        if self._unsent:
            selector.register(self._ask, selectors.EVENT_WRITE)


def wait(workers: Sequence[Worker]) -> None:
    """Sleep until one of the workers has something to say, can take more of its item, or has run out of time."""
    if any(worker.has_more for worker in workers):
        return
    with selectors.PollSelector() as selector:
        for worker in workers:
            worker.watch(selector)
        selector.select(max(0.0, min(worker.deadline for worker in workers) - time.monotonic()))

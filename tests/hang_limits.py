"""Ends a test that hangs, and never one that is slow.

A clock cannot tell the two apart on a busy machine. So a small process of its own looks once a second at pytest and
all that it started, and counts what the test had, not what time went by: processor seconds, and seconds of silence, in
which nothing of the test was running or ready to run. conftest.py starts it and fails the test that it names.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROCESSOR = 300.0  # a test's processor seconds, those of its processes with them
SILENCE = 120.0  # seconds without a sign of life
INTERVAL = 1.0
# A loop that polls takes a little of the processor and is no sign of life: less than this share of a core is silence.
POLLING = 0.1
AVAILABLE = Path("/proc/self/stat").exists()  # Linux; elsewhere no test is ended
SIGNAL = int(getattr(signal, "SIGRTMIN", 0)) + 3  # nothing else here uses it; SIGALRM belongs to math-verify
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table: `processor` in seconds, with that of children that ended and were waited for."""

    pid: int
    parent: int
    name: str
    state: str
    processor: float


def parse_stat(text: str) -> Process:
    """A line of /proc/PID/stat or /proc/PID/task/TID/stat; the name in it may hold spaces and brackets."""
    head, _, rest = text.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = rest.split()
    return Process(int(pid), int(fields[1]), name, fields[0], sum(map(int, fields[11:15])) / CLOCK_TICKS)


def read_stats(folder: Path) -> list[Process]:
    """All processes of /proc, or all threads of /proc/PID/task. What ends meanwhile is left out."""
    read = []
    # not Path.glob: until Python 3.13 it raises when `folder` itself is gone
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if path.name.isdigit():
                    read.append(parse_stat((path / "stat").read_text()))
    return read


def tree_of(root: int, table: list[Process]) -> list[Process]:
    """`root` and its descendants, without this process."""
    children: dict[int, list[Process]] = {}
    for process in table:
        children.setdefault(process.parent, []).append(process)
    tree = [process for process in table if process.pid == root]
    for process in tree:
        tree.extend(child for child in children.get(process.pid, []) if child.pid != os.getpid())
    return tree


class Budget:
    """What is left for one test. `spend` takes a look at its processes and says why it must end, or nothing."""

    def __init__(self, processor: float, silence: float) -> None:
        self.processor, self.silence = processor, silence
        self._spent = self._silent = 0.0
        self._before: float | None = None

    def spend(self, processor: float, runnable: bool) -> str:
        """`processor`: seconds of all its processes until now; `runnable`: a thread runs or waits for core or disk."""
        used = 0.0 if self._before is None else max(0.0, processor - self._before)
        first, self._before = self._before is None, processor
        self._spent += used
        if not first and not runnable and used < POLLING * INTERVAL:
            self._silent += INTERVAL
        if self._spent > self.processor:
            return f"took more than {self.processor:g} s of processor time"
        if self._silent > self.silence:
            return f"gave no sign of life for {self.silence:g} s: nothing of it was running or ready to run"
        return ""


def watch(pid: int) -> None:
    """The watching process. A line `NUMBER PROCESSOR SILENCE` on stdin starts a test, and `0 0 0` is a pause."""
    chooser = selectors.DefaultSelector()
    chooser.register(0, selectors.EVENT_READ)
    buffer, number, budget, warned = b"", 0, Budget(0, 0), 0
    while os.getppid() == pid:
        until = time.monotonic() + INTERVAL
        while (left := until - time.monotonic()) > 0:
            if chooser.select(left):
                if not (read := os.read(0, 65536)):
                    return
                *lines, buffer = (buffer + read).split(b"\n")
                for line in lines:
                    words = line.split()
                    number, budget = int(words[0]), Budget(float(words[1]), float(words[2]))
        if number == 0:
            continue
        tree = tree_of(pid, read_stats(Path("/proc")))
        threads = [thread for process in tree for thread in read_stats(Path(f"/proc/{process.pid}/task"))]
        reason = budget.spend(sum(process.processor for process in tree), any(one.state in "RD" for one in threads))
        if not reason:
            continue
        if number == warned:  # it hangs in C code: faulthandler writes the stacks, and pytest ends
            os.kill(pid, signal.SIGABRT)
            return
        warned, budget = number, Budget(budget.processor, budget.silence)
        there = ", ".join(f"{process.name} ({process.pid}, {process.state})" for process in tree)
        os.write(1, f"{number} {reason}. Its processes: {there}\n".encode())
        os.kill(pid, SIGNAL)


class Watcher:
    """pytest's side: `start` a test and `pause` after it. `fail` is called in the middle of a test that must end."""

    def __init__(self, fail: Any) -> None:
        self._fail, self._number, self._running, self._owner = fail, 0, 0, os.getpid()
        command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
        # Away from the terminal's Ctrl-C: it ends when pytest does.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        signal.signal(SIGNAL, self._on_signal)

    def start(self, processor: float, silence: float) -> None:
        self._number += 1
        self._running = self._number
        self._write(f"{self._number} {processor} {silence}\n")

    def pause(self) -> None:
        self._running = 0
        self._write("0 0 0\n")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())

    def _on_signal(self, *_: object) -> None:
        assert self._process.stdout is not None
        number, _, reason = self._process.stdout.readline().decode().partition(" ")
        if int(number) == self._running:  # else it ended by itself just now
            self._fail(reason.strip())


if __name__ == "__main__":
    watch(int(sys.argv[1]))

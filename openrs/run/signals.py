"""Asked to stop: by SIGTERM, by Ctrl-C, or by a deadline. Everything stops at a safe place; a second signal, at once.

Safe is, in the training loop, the next step boundary with a checkpoint (`defer`); elsewhere any moment: what is done
is on disk, and Interrupted goes up from where the signal came. Both end with exit code 75.
"""

import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from types import FrameType

from openrs.errors import EXIT_INTERRUPTED, Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # the last: a terminal that is closed, a line that broke
# A terminal gives Ctrl-C to every process of a job, and launchers pass on what they get: within this, one request.
ECHO_SECONDS = 1.0


@dataclass(slots=True)
class _State:
    """Of this process: signal handlers are its own, too. `pending` is the signal's number, 0 for none."""

    deferred: bool = False
    pending: int = 0
    at: float = 0.0


_state = _State()


@contextmanager
def install_handlers() -> Iterator[None]:
    """SIGNALS stop the block at a safe place. Only in the main thread; the old handlers come back after."""
    handled = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]  # nohup, or a shell's background
    before = {number: signal.signal(number, _handle) for number in handled}
    _state.pending = 0
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def defer() -> Iterator[None]:
    """In the block a signal is only noted: whoever runs the block asks `pending_signal()` at its own safe places."""
    _state.deferred = True
    try:
        yield
    finally:
        _state.deferred = False


@contextmanager
def block_signals() -> Iterator[None]:
    """A signal waits until the block is over. Processes that start in it begin with SIGNALS blocked.

    The mask is this thread's only: another thread may take the signal, and Python then calls the handler in the main
    thread all the same, so the handlers wait as well.
    """
    came: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, lambda n, _: came.append(n)) for number in SIGNALS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def pending_signal() -> int:
    """The number of the signal that came, or 0."""
    return _state.pending


def seconds_since() -> float:
    return time.monotonic() - _state.at


def name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _handle(number: int, _: FrameType | None) -> None:
    now = time.monotonic()
    if _state.pending:
        if now - _state.at < ECHO_SECONDS:
            return
        _write_stderr(f"{name(number)} again: leaving at once; the last complete checkpoint stays\n")
        os._exit(EXIT_INTERRUPTED)
    _state.pending, _state.at = number, now
    if not _state.deferred:
        raise Interrupted(f"stopped by {name(number)}; the same command resumes from what is done")
    _write_stderr(f"\n{name(number)}: finishing this step, then a checkpoint, then the end. Once more: at once\n")


def _write_stderr(text: str) -> None:
    """Straight to the file descriptor: a handler may have interrupted a print."""
    try:
        os.write(2, text.encode())
    except OSError:  # nobody is there to read it
        return


class Deadline:
    """When to leave so that a last checkpoint is written in time.

    Args:
        max_hours: of wall clock for this attempt, from `started` (seconds since 1970) on.
        must_save_by: a moment by the wall clock, ISO 8601; without an offset it is UTC.
    """

    def __init__(self, max_hours: float | None, must_save_by: str | None, started: float) -> None:
        # The attempt's own clock must not care when somebody sets the wall clock, so only its start is read from it.
        spent = max(0.0, time.time() - started)
        self._end = math.inf if max_hours is None else time.monotonic() - spent + 3600 * max_hours
        self._moment = math.inf if must_save_by is None else moment(must_save_by).timestamp()
        self._steps: deque[float] = deque(maxlen=20)
        self._save = 0.0

    def stepped(self, seconds: float) -> None:
        self._steps.append(seconds)

    def saved(self, seconds: float) -> None:
        self._save = max(self._save, seconds)

    @property
    def reserve(self) -> float:
        """Seconds that one more step and a checkpoint may take: the longest of the last 20 steps, or twice the median,
        and three times the longest checkpoint so far (30 s before the first)."""
        step = max(*self._steps, 2 * median(self._steps)) if self._steps else 0.0
        return step + (3 * self._save if self._save else min(30.0, 10 * step))

    @property
    def left(self) -> float:
        """Seconds to the nearer of the two, infinite when there is none."""
        return min(self._end - time.monotonic(), self._moment - time.time())

    def near(self) -> bool:
        """Whether one more step might be too late."""
        return self.left < self.reserve


def moment(text: str) -> datetime:
    """An ISO 8601 moment, UTC where it has no offset. Raises ValueError."""
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)

"""A training that does not move is ended, with the stacks of all its processes in the run: a hang costs minutes.

Every process watches itself: a rank that waits in a collective for another hangs as well. No progress means no step
for `factor` times the median step, and at least `least` seconds. The first to notice asks its siblings on this machine
for their stacks (SIGUSR1), then leaves with exit code 1; a launcher ends the others. Where C code keeps the GIL and so
this module's thread from running, faulthandler's own timer does the same a little later, without Python.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from openrs.errors import EXIT_FAILED
from openrs.run.confined import open_appending

FIRST = 3.0  # the first step has no median: it gets this many times `least`
LATER = 5.0  # seconds after which the timer without Python goes off
STACKS = 1.0  # seconds that siblings get to write theirs


class Watchdog:
    """Watches this process until `stop`. `beat` after every step, `alive` after other work that takes long; `expect`
    before work that is known to take another time than a step.

    Args:
        folder: gets stacks-rank<R>.txt, which is taken away again when it was not needed.
        siblings: process numbers on this machine that take part, this one among them or not.
        say: gets one line, why the process ends.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        siblings: Sequence[int],
        factor: float,
        least: float,
        say: Callable[[str], None],
    ) -> None:
        self._rank, self._factor, self._least, self._say = rank, factor, least, say
        self.siblings = siblings
        self._expected: float | None = None
        self._seconds: deque[float] = deque(maxlen=50)
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self.stacks = folder / f"stacks-rank{rank}.txt"
        self._file = os.fdopen(open_appending(self.stacks), "a", encoding="utf-8")
        faulthandler.register(signal.SIGUSR1, file=self._file, all_threads=True, chain=False)
        self._arm()
        threading.Thread(target=self._watch, name="openrs-watchdog", daemon=True).start()

    @property
    def limit(self) -> float:
        """Seconds without a step that are too many."""
        if self._expected is not None:
            return self._expected
        if not self._seconds:
            return FIRST * self._least
        return max(self._least, self._factor * median(self._seconds))

    def beat(self) -> None:
        self._seconds.append(time.monotonic() - self._last)
        self.alive()

    def alive(self) -> None:
        self.expect(None)

    def expect(self, seconds: float | None) -> None:
        """What begins now may take so many seconds; None: as long as a step may. Holds until the next sign of life."""
        self._last, self._expected = time.monotonic(), seconds
        self._arm()

    def stop(self) -> None:
        self._stopped.set()
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(signal.SIGUSR1)
        with contextlib.suppress(OSError):  # a file that somebody took away, a full disk: no reason to fail a run
            self._file.close()
            if self.stacks.stat().st_size == 0:
                self.stacks.unlink()

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(self.limit + LATER, file=self._file, exit=True)

    def _watch(self) -> None:
        while not self._stopped.wait(min(5.0, self.limit / 10)):
            still = time.monotonic() - self._last
            if still > self.limit:
                self._end(still)

    def _end(self, still: float) -> None:
        for pid in [pid for pid in self.siblings if pid != os.getpid()]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGUSR1)
        faulthandler.dump_traceback(file=self._file, all_threads=True)
        usual = f"{median(self._seconds):.1f} s" if self._seconds else "not known yet"
        self._say(
            f"no progress for {still:.0f} s (a step usually takes {usual}): something hangs. The stacks of all"
            f" processes are in {self.stacks.parent}; the same command resumes from the last complete checkpoint"
        )
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(STACKS)
        os._exit(EXIT_FAILED)

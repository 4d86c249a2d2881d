"""What a person sees of a long job: one live line in a terminal, one plain line a step in a log file or container."""

import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from openrs.run.confined import open_appending
from openrs.run.terminal import clean
from openrs.run.units import format_duration


class Progress:
    """Counts steps towards `total` and says how it goes; every line also goes into the file `log`.

    In a terminal `step` rewrites one line; elsewhere it prints one plain line a step.
    """

    def __init__(self, log: Path | None = None, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._log = os.fdopen(open_appending(log), "a", encoding="utf-8") if log is not None else None
        self._width = 0
        self._ends: deque[tuple[float, int | None]] = deque(maxlen=20)  # when, and how many were done then
        self._warm = False  # whether the first step, which also imports and compiles, has gone out of `_ends`

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        self._show(clean(text) + "\n")
        self.note(text)

    def note(self, text: str) -> None:
        """A line for the log file only."""
        if self._log is not None:
            self._log.write(f"{time.strftime('%H:%M:%S')} {clean(text)}\n")
            self._log.flush()

    def start(self, done: int | None = None) -> None:
        """A new job begins: the time left is estimated from its own steps only. `done` were there before."""
        self._ends.clear()
        self._ends.append((time.monotonic(), done))
        self._warm = False

    def step(self, label: str, done: int, total: int, facts: Mapping[str, Any]) -> None:
        """`done` of `total` are done. The time left is the mean pace over the last 20 calls, times what is to go; the
        first call of a job counts only as long as there is no other."""
        now = time.monotonic()
        if len(self._ends) == 2 and not self._warm:
            self._ends.popleft()
            self._warm = True
        since, before = self._ends[0] if self._ends else (now, done)
        if before is None:  # the job's first call: one more is done
            before = done - 1
            self._ends[0] = (since, before)
        self._ends.append((now, done))
        pace = (now - since) / max(1, done - before)
        values = "  ".join(f"{name} {_number(value)}" for name, value in facts.items() if value is not None)
        left = format_duration(pace * (total - done))
        self.live(
            f"{label} {done:>{len(str(total))}}/{total}  {values}  {_pace(pace)} s each, {left} left",
            last=done == total,
        )

    def live(self, text: str, *, last: bool = False) -> None:
        """A line that the next one replaces in a terminal, unless it is the `last`."""
        line = clean(text)
        self.note(line)
        if self._live:
            shown = line[:200]
            self._show("\r" + shown.ljust(self._width) + ("\n" if last else ""))
            self._width = 0 if last else len(shown)
        else:
            self._show(line + "\n")

    def close(self) -> None:
        self._clear()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _clear(self) -> None:
        if self._width:
            self._show("\r" + " " * self._width + "\r")
            self._width = 0

    def _show(self, text: str) -> None:
        """Write to the stream. When nobody reads it (a closed terminal, `| head`), the job continues unseen."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # what is buffered has to go somewhere, or Python's exit fails over it
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


def _pace(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.2g}"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

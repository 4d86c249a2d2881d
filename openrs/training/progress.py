"""What a person sees of a long job: one live line in a terminal, one plain line a step in a log file or container."""

import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO


def duration(seconds: float) -> str:
    """'48 s', '3 min 05 s', '7 h 12 min'."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """Counts steps towards `total` and says how it goes; every line also goes into the file `log`.

    In a terminal `step` rewrites one line; elsewhere it prints one plain line a step.
    """

    def __init__(self, log: Path | None = None, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._log = log.open("a", encoding="utf-8") if log is not None else None
        self._width = 0
        self._ends: deque[float] = deque(maxlen=21)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        self._stream.write(text + "\n")
        self._stream.flush()
        self.note(text)

    def note(self, text: str) -> None:
        """A line for the log file only."""
        if self._log is not None:
            self._log.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            self._log.flush()

    def start(self) -> None:
        """A new job begins: the time left is estimated from its own steps only."""
        self._ends.clear()
        self._ends.append(time.monotonic())

    def step(self, label: str, done: int, total: int, facts: Mapping[str, Any]) -> None:
        """One step more. The time left is the mean of the last 20 steps, times the steps to go."""
        self._ends.append(time.monotonic())
        pace = (self._ends[-1] - self._ends[0]) / max(1, len(self._ends) - 1)
        told = "  ".join(f"{name} {_number(value)}" for name, value in facts.items() if value is not None)
        left = duration(pace * (total - done))
        line = f"{label} {done:>{len(str(total))}}/{total}  {told}  {pace:.2f} s each, {left} left"
        self.note(line)
        if self._live:
            shown = line[:200]
            self._stream.write("\r" + shown.ljust(self._width))
            self._width = len(shown)
            if done == total:
                self._stream.write("\n")
                self._width = 0
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._clear()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

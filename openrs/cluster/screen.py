"""Terminal output while a Job runs: our messages, the Pods' logs, and a progress bar on a terminal."""

import re
import sys
import threading
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from openrs.run.terminal import clean

# A line of openrs.run.progress.Progress: `step  12/500  reward 0.41  ...  3.10 s each, 25 min 13 s left`.
STEP = re.compile(r"(?P<label>\S.*?) +(?P<done>\d+)/(?P<total>\d+)  (?P<metrics>.*), (?P<left>[^,]+) left")


class Screen:
    """Safe to use from several threads. Nothing that is printed keeps escape sequences or secrets."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stdout, highlight=False, markup=False, soft_wrap=True, emoji=False)
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._last = ""

    def say(self, text: str) -> None:
        """A message of openrs, marked with --."""
        for line in text.splitlines():
            self._print(f"-- {clean(line)}")

    def log(self, prefix: str, line: str) -> None:
        """A line of a Pod's log. In a terminal a line of progress moves the bar instead."""
        step = STEP.fullmatch(line.strip()) if self._console.is_terminal else None
        if step is None:
            self._print(f"{prefix}{clean(line)}")
            return
        text = clean(f"{step['metrics']}, {step['left']} left")
        facts: dict[str, Any] = {"completed": int(step["done"]), "total": int(step["total"]), "text": text}
        with self._lock:
            if self._bar is None:
                whole, rest = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
                self._bar = Progress(
                    TextColumn("{task.description} {task.completed}/{task.total}", table_column=whole),
                    BarColumn(bar_width=20, table_column=whole),
                    TextColumn("{task.fields[text]}", table_column=rest),
                    console=self._console,
                    expand=True,
                )
                self._bar.add_task(clean(prefix + step["label"]), **facts)
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], description=clean(prefix + step["label"]), **facts)

    def close(self) -> None:
        """Stop the progress bar and restore the terminal."""
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _print(self, text: str) -> None:
        with self._lock:
            self._console.print(text)

"""Judging beside other work: a thread hands items to the judge's processes while the caller uses its own time."""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from openrs.rewards.grading import Item, Judge, Verdict

Asked = tuple[Sequence[Item], "Future[dict[Item, Verdict]]"]


class Ahead:
    """Asks the judge now and gives the verdicts later. The judging itself is done by the judge's processes, as always.

    One thread for all of a program's life, because the kernel ends a child with the thread that started it. A daemon:
    it never holds up the end of the program.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._asked: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._found: Future[dict[Item, Verdict]] | None = None

    def ask(self, items: Sequence[Item]) -> None:
        """Begin to judge; what was asked before and not taken is forgotten."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="judging ahead", daemon=True)
            self._thread.start()
        self._found = Future()
        self._asked.put((items, self._found))

    def take(self) -> dict[Item, Verdict]:
        """Wait for what was asked; nothing when nothing was. Raises what the judge raised."""
        found, self._found = self._found, None
        return found.result() if found is not None else {}

    def _work(self) -> None:
        while True:
            items, found = self._asked.get()
            try:
                grades = self._judge.grade(items)
            except BaseException as error:  # noqa: BLE001 - raised again by take(), in the caller's thread
                found.set_exception(error)
            else:
                found.set_result({item: grade.verdict for item, grade in zip(items, grades, strict=True)})

"""The one judge: is this completion right? Training rewards, curation and evaluation all ask here.

math-verify runs in worker processes (pool.py, worker.py), never in threads: version 0.5.2 silently compares strings
there. Each item has a wall clock of its own, each worker a memory limit; a worker that exceeds one of them, or dies, is
killed and replaced, and its item gets a verdict all the same. The answer to a bad input is a verdict, never an
exception and never a hang.
"""

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from openrs.errors import UserError
from openrs.rewards.pool import WORKER_DIED, Worker, wait

logger = logging.getLogger(__name__)


class Verdict(StrEnum):
    """Only CORRECT is a right answer. What the others pay is the rewards' affair (functions.py); in an evaluation they
    are wrong."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    UNPARSEABLE_GOLD = "unparseable_gold"
    NO_ANSWER = "no_answer"
    TIMEOUT = "timeout"
    CRASH = "crash"


class Rule(StrEnum):
    """Which of the paper's questions is asked. worker.py has each of them, with its source."""

    PAPER = "paper"  # the accuracy reward as published: verify(answer, gold), the wrong way round
    PAPER_COSINE = "paper-cosine"  # the same inside the cosine reward as published, which opens fewer boxes
    CORRECTED = "corrected"  # the accuracy reward with verify(gold, answer)
    LATEX_GOLD = "latex-gold"  # the evaluation: gold read as LaTeX (MATH-500, Minerva, OlympiadBench)
    EXPR_GOLD = "expr-gold"  # the evaluation: gold read as an expression (AIME24, AMC23)
    INDEX_GOLD = "index-gold"  # the evaluation: the letter of a choice, A to D (GPQA-Diamond)


@dataclass(frozen=True, slots=True)
class Item:
    gold: str
    completion: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict, what was extracted from gold and completion (short, for a person; empty after TIMEOUT and CRASH) and
    the seconds."""

    verdict: Verdict
    gold: str
    answer: str
    seconds: float


class Judge:
    """A pool of workers, started when first needed. Use it as a context manager, or close() it; leaving it to the end
    of the program is safe too, and so is SIGKILL. May be used from any thread (calls take turns) and beside torch and
    CUDA: workers are new programs, not forks, and never run the caller's __main__.

    Args:
        workers: how many items are graded at once; default as many as there are processors, at most 4 (one item takes
            milliseconds).
        timeout: seconds of wall clock for one item, all of it: reading gold and completion, comparing them, writing
            both down. math-verify's own limits of 3 s for each parse and each comparison (lighteval's: 5 s) act inside
            it. An item that is stopped at 5 s is TIMEOUT where the published code, which had no limit for the whole,
            would have gone on; it nearly always ended in "not equal" there.
        memory_bytes: address space of a worker (RLIMIT_AS; not enforced on macOS).

    Raises:
        UserError: a limit that makes no sense; when first used: math-verify or lighteval is not installed.
    """

    def __init__(self, workers: int | None = None, timeout: float = 5.0, memory_bytes: int = 2 * 2**30) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"a judge with {workers} workers", fix="use at least one worker")
        if not 0 < timeout < float("inf"):
            raise UserError(f"a judge with a time limit of {timeout} s", fix="use a limit above 0, for example 5")
        if memory_bytes < 256 * 2**20:
            raise UserError(
                f"a judge with {memory_bytes} bytes of memory", "a worker needs about 100 MB only to start", "use 2 GiB"
            )
        self.workers = workers if workers is not None else min(4, processors())
        self.timeout = timeout
        self.memory_bytes = memory_bytes
        self._reset_after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all workers and don't wait for them: they import while the caller does something else."""
        with self._lock:
            while len(self._pool) < self.workers:
                self._pool.append(Worker(self.memory_bytes, self.timeout))

    def close(self) -> None:
        """End all workers; a thread that is asking gets an error. A judge that is asked again starts new ones."""
        self._closed += 1
        _end_all(self._pool, self._owner)

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        """Judge every item; the grades come in the order of the items. Never raises for what is in an item, and never
        hangs."""
        if os.getpid() != self._owner:  # we are in a forked child: the workers and the lock belong to the parent
            self._reset_after_fork()
        with self._lock:
            try:
                return self._grade(items)
            except BaseException:
                # Ctrl-C, or a worker that doesn't start: the answers under way belong to nobody any more.
                self.close()
                raise

    def _reset_after_fork(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._pool: list[Worker] = []
        self._failed_starts = 0
        self._closed = 0
        weakref.finalize(self, _end_all, self._pool, self._owner)

    def _grade(self, items: Sequence[Item]) -> list[Grade]:
        waiting = deque(range(len(items)))
        tried_twice: set[int] = set()
        grades: dict[int, Grade] = {}
        closed = self._closed
        while len(grades) < len(items):
            if self._closed != closed:
                raise RuntimeError("the judge was closed while it judged")
            self._dispatch(waiting, items)
            wait(self._pool)
            for worker in list(self._pool):
                number, reply = worker.item, worker.reply()
                if worker.gone:
                    self._remove_dead(worker)
                    # what it held and had not begun
                    waiting.extendleft(n for n in (worker.queued, worker.item) if n is not None and n != number)
                if reply is None or number is None:
                    continue
                if reply["verdict"] == WORKER_DIED and number not in tried_twice:
                    tried_twice.add(number)
                    waiting.appendleft(number)
                else:
                    grades[number] = _grade_of(reply)
        return [grades[number] for number in range(len(items))]

    def _dispatch(self, waiting: deque[int], items: Sequence[Item]) -> None:
        """Give every idle worker an item, and busy ones the next; start workers while there are fewer than allowed and
        more items than workers starting."""
        for worker in list(self._pool):
            if waiting and worker.ready and worker.item is None:
                if worker.alive():
                    self._give(worker, waiting, items)
                else:
                    worker.end()
                    self._pool.remove(worker)
        for worker in self._pool:  # and one to follow; the last ones are kept for who is idle first
            if len(waiting) > self.workers and worker.ready and worker.item is not None and worker.queued is None:
                self._give(worker, waiting, items)
        while len(self._pool) < self.workers and sum(not worker.ready for worker in self._pool) < len(waiting):
            self._pool.append(Worker(self.memory_bytes, self.timeout))

    def _give(self, worker: Worker, waiting: deque[int], items: Sequence[Item]) -> None:
        item = items[number := waiting.popleft()]
        worker.give(number, {"gold": item.gold, "completion": item.completion, "rule": item.rule})

    def _remove_dead(self, worker: Worker) -> None:
        self._pool.remove(worker)
        self._failed_starts = 0 if worker.ready else self._failed_starts + 1
        if self._failed_starts == 3:
            raise RuntimeError(
                "the judge's worker processes end or hang while they start; see their message above, if any"
            )


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _grade_of(reply: dict[str, Any]) -> Grade:
    verdict = Verdict.CRASH if reply["verdict"] == WORKER_DIED else Verdict(reply["verdict"])
    if reply.get("error"):
        logger.warning("the judge could not finish an item: %s", printable(reply["error"]))
    return Grade(verdict, reply["gold"], reply["answer"], reply["seconds"])


def _end_all(pool: list[Worker], owner: int) -> None:
    if os.getpid() == owner:  # a forked child has the list, but not the workers
        for worker in pool:
            worker.end()
    pool.clear()


def printable(text: str) -> str:
    """One line that is safe in a terminal and a log: what a model wrote may hold line ends, escape sequences and half
    characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)

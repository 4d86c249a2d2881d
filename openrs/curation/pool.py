"""Parts worked on side by side, in processes that end when this one does, also by SIGKILL."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Self

from openrs.errors import RunFailure
from openrs.run import signals

AHEAD = 2  # tasks that wait for each process: what is handed out must not grow with the data


class Pool:
    """`workers` processes, started when first needed; with one worker everything runs here."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def each(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """function(*task) for each task; results come as they are finished. Raises RunFailure when a process dies."""
        if self.workers == 1:
            for task in tasks:
                yield function(*task)
            return
        waiting = iter(tasks)
        try:
            running = self._first(function, list(islice(waiting, AHEAD * self.workers)))
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {self._submit(function, task) for task in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise RunFailure(
                "a working process was ended from outside",
                "out of memory, perhaps",
                "the same command resumes from what is done; --workers 1 takes least memory",
            ) from None

    def _first(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> set[Future[Any]]:
        """Start the processes. A signal waits until they are up: one that is cut off while it starts says so at length.
        They begin with signals blocked, too (_begin)."""
        with signals.block_signals():
            if self._executor is None:
                context = multiprocessing.get_context("spawn")  # no fork: there may be threads here
                self._executor = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin)
            return {self._submit(function, task) for task in tasks}

    def _submit(self, function: Callable[..., Any], task: tuple[Any, ...]) -> Future[Any]:
        assert self._executor is not None
        return self._executor.submit(function, *task)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

"""Waiting for a condition, never for a clock: what never comes is silence, and hang_limits.py ends the test for it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


def until(condition: Callable[[], Value]) -> Value:
    """The first result of `condition` that is true."""
    while not (result := condition()):
        time.sleep(0.02)
    return result


def gone(*pids: int) -> bool:
    """Whether all these processes have ended; one that only waits for its parent to ask has."""
    return all(_state(pid) in "ZX" for pid in pids)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"

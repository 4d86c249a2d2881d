"""Rewards for runs of a model that has learned nothing: they spread, so every step has a gradient."""

import hashlib
import os
import signal
import time
from typing import Any


def spread(completions: list[str], **_: Any) -> list[float]:
    """A number in [0, 1) from the text."""
    return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 for text in completions]


def spread_and_stick(completions: list[str], trainer_state: Any, **_: Any) -> list[float]:
    """Like spread, but from step STICK_AT on it never comes back, as a reward that waits for a dead server."""
    while trainer_state.global_step + 1 >= int(os.environ["STICK_AT"]):
        time.sleep(0.05)
    return spread(completions)


def spread_and_die(completions: list[str], trainer_state: Any, **_: Any) -> list[float]:
    """Like spread; the process is killed inside the generation batch of step DIE_AT, once its samples are drawn."""
    if trainer_state.global_step + 1 == int(os.environ["DIE_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return spread(completions)

"""Rewards for runs of a model that has learned nothing: they spread, so every step has a gradient."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any


def spread(completions: list[str], **_: Any) -> list[float]:
    """A number in [0, 1) from the text."""
    return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 for text in completions]


def spread_and_stick(completions: list[str], trainer_state: Any, **_: Any) -> list[float]:
    """Like spread, but from step STICK_AT on (on rank STICK_RANK) it never comes back, as if it asked a dead server.

    The file STUCK, where one is named, is there from then on.
    """
    stuck_rank = os.environ.get("STICK_RANK", os.environ.get("RANK"))
    while trainer_state.global_step + 1 >= int(os.environ["STICK_AT"]) and os.environ.get("RANK") == stuck_rank:
        Path(os.environ.get("STUCK", os.devnull)).touch()
        time.sleep(0.05)
    return spread(completions)

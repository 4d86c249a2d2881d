"""A line of the doctor: what was found, what is needed, how to fix it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "info", "warn", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """state fail: a run would fail, or cost money for nothing; warn: slower, or risky; unknown: nobody could say."""

    name: str
    state: State
    found: str
    needed: str = ""
    fix: str = ""


def judged(name: str, good: bool | None, found: str, needed: str, fix: str, *, bad: State = "fail") -> Finding:
    """A line that is ok, or `bad` with its needs and cure; None is unknown."""
    if good is None:
        return Finding(name, "unknown", found, needed, fix)
    return Finding(name, "ok", found, needed) if good else Finding(name, bad, found, needed, fix)

"""What a person reads of a long job: the pace, and the time left."""

import io
import re

import pytest

from openrs.run import progress
from openrs.run.progress import Progress
from openrs.run.units import format_duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stands for time.monotonic: its last number is now."""
    times = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[-1])
    return times


def told(stream: io.StringIO) -> list[tuple[str, str]]:
    """Pace and time left of each line."""
    return re.findall(r"  (\S+) s each, (.*) left", stream.getvalue())


def test_a_first_step_that_imports_for_a_minute_does_not_set_the_pace(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = Progress(stream=stream)
    shown.start()
    for step, seconds in enumerate([60.0, 2.0, 4.0], 1):
        clock.append(clock[-1] + seconds)
        shown.step("step", step, 10, {})
    assert told(stream) == [("60.00", "9 min 00 s"), ("2.00", "16 s"), ("3.00", "21 s")]


def test_the_pace_is_that_of_the_last_twenty_calls(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = Progress(stream=stream)
    shown.start(40)  # there before
    for call in range(1, 51):
        clock.append(clock[-1] + (1.0 if call <= 30 else 3.0))
        shown.step("judged", 40 + 2 * call, 200, {})
    assert told(stream)[28] == ("0.50", "51 s")
    assert told(stream)[-1] == ("1.50", "1 min 30 s")


def test_durations() -> None:
    assert [format_duration(seconds) for seconds in (-1, 48.4, 185, 25_920)] == [
        "0 s",
        "48 s",
        "3 min 05 s",
        "7 h 12 min",
    ]

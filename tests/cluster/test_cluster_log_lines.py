"""Lines of logs: their order, those that come twice, and how they show in a terminal."""

import io
from collections.abc import Callable

import pytest

from openrs.cluster.screen import Screen
from openrs.cluster.watch import LogDeduplicator, comparable
from openrs.run.progress import Progress

pytestmark = pytest.mark.slow


def test_times_of_log_lines_sort_although_zeros_are_left_out() -> None:
    moments = [
        "2026-11-21T09:00:00Z",
        "2026-11-21T09:00:00.05Z",
        "2026-11-21T09:00:00.5Z",
        "2026-11-21T09:00:00.50001Z",
    ]
    assert [comparable(moment) for moment in reversed(moments)] == sorted(map(comparable, moments), reverse=True)


@pytest.mark.parametrize("cut", range(7))
def test_lines_of_one_moment_are_told_apart(cut: int) -> None:
    log = ["1", "1", "2", "2", "2", "3"]
    seen = LogDeduplicator()
    got = [line for line in log[:cut] if seen.new(line)]
    seen.again()
    got += [line for line in log if seen.new(line)]
    assert got == log


def in_terminal(write: Callable[[Screen], None]) -> str:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    screen = Screen(stream)
    write(screen)
    screen.close()
    return stream.getvalue()


def test_the_bar_moves_by_the_lines_that_openrs_really_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    lines = io.StringIO()
    progress = Progress(None, lines)
    progress.start(0)
    for step in range(1, 4):
        progress.step("step", step, 500, {"reward": 0.5, "accuracy": 0.25, "length": 2800})

    def write(screen: Screen) -> None:
        screen.log("", "an ordinary line")
        for line in lines.getvalue().splitlines():
            screen.log("", line)

    shown = in_terminal(write)
    assert "3/500" in shown
    assert "reward 0.5" in shown
    assert "an ordinary line" in shown
    plain = io.StringIO()
    screen = Screen(plain)
    screen.log("[0] ", lines.getvalue().splitlines()[-1])
    assert plain.getvalue().startswith("[0] step   3/500  reward 0.5")  # no terminal: the line as it is

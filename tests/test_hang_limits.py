"""hang_limits.py: a test that hangs is ended with a reason, and one that gets little of a busy machine is not."""

import subprocess
import sys
from pathlib import Path

import hang_limits
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not hang_limits.AVAILABLE, reason="the process table is read from Linux's /proc")

HANGING = """
import subprocess, sys, threading, time
import pytest

@pytest.fixture
def that_hangs():
    time.sleep(600)

@pytest.mark.limits(silence=0.5)
class TestSilent:
    def test_sleeps(self): time.sleep(600)
    def test_polls_for_what_never_comes(self):
        while True: time.sleep(0.05)
    def test_waits_for_a_child_that_hangs(self): subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"])
    def test_catches_what_it_can(self):
        while True:
            try: time.sleep(600)
            except Exception: pass
    def test_in_a_fixture(self, that_hangs): pass

@pytest.mark.limits(processor=0.5)
class TestBusy:
    def test_spins(self):
        while True: pass
    def test_has_a_child_that_spins(self): subprocess.run([sys.executable, "-c", "while True: pass"])

@pytest.mark.limits(silence=3)
def test_with_a_child_that_works():
    work = "import time\\nwhile time.process_time() < 3: pass"
    subprocess.run([sys.executable, "-c", work], check=True)

def test_after_them(): pass
"""
DEAF = """
import signal, time
import hang_limits, pytest

@pytest.mark.limits(silence=0.5)
def test_that_hears_no_signal():
    signal.pthread_sigmask(signal.SIG_BLOCK, {hang_limits.SIGNAL})
    time.sleep(600)
"""


def run_pytest(folder: Path, test: str) -> tuple[int, str]:
    """pytest on one file with this suite's conftest.py, and with no settings but the marker's name."""
    (folder / "test_planted.py").write_text(test)
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    for helper in ("hang_limits.py", "forked.py"):
        (folder / helper).write_text((ROOT / "tests" / helper).read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = limits\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:kmock", "-p", "no:cacheprovider", folder]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_what_hangs_is_ended_and_the_rest_goes_on(tmp_path: Path) -> None:
    code, text = run_pytest(tmp_path, HANGING)
    assert code == 1, text
    assert "6 failed, 2 passed, 1 error" in text
    assert text.count("Failed: gave no sign of life for 0.5 s: nothing of it was running or ready to run") >= 5
    assert text.count("Failed: took more than 0.5 s of processor time. Its processes: ") >= 2
    assert "PASSED test_planted.py::test_with_a_child_that_works" in text
    assert "PASSED test_planted.py::test_after_them" in text


@pytest.mark.slow
def test_what_cannot_be_interrupted_ends_pytest_with_the_stack(tmp_path: Path) -> None:
    code, text = run_pytest(tmp_path, DEAF)
    assert code == -6, text
    assert "in test_that_hears_no_signal" in text


def test_a_starved_process_is_alive() -> None:
    """It waits for a core all the time and has hardly one: no sample of it is silence."""
    budget = hang_limits.Budget(processor=300, silence=5)
    assert {budget.spend(0.001 * second, runnable=True) for second in range(10_000)} == {""}


def test_silence_counts_looks_and_not_a_clock() -> None:
    budget = hang_limits.Budget(processor=300, silence=3)
    assert [bool(budget.spend(1.0, runnable=False)) for _ in range(6)] == [False, False, False, False, True, True]


def test_work_between_the_looks_is_a_sign_of_life() -> None:
    budget = hang_limits.Budget(processor=300, silence=3)
    assert {budget.spend(0.2 * second, runnable=False) for second in range(1000)} == {""}


def test_what_a_process_took_before_the_test_does_not_count() -> None:
    budget = hang_limits.Budget(processor=10, silence=3)
    assert budget.spend(5000.0, runnable=True) == ""
    assert budget.spend(5009.0, runnable=True) == ""
    assert budget.spend(4000.0, runnable=True) == ""  # one of them is gone, and nobody waited for it
    assert "more than 10 s" in budget.spend(4002.0, runnable=True)


def test_a_line_of_the_process_table() -> None:
    line = "77 (a (b) c) S 5 77 77 0 -1 4194560 1 2 3 4 100 200 300 400 20 0 1 0 9"
    ticks = hang_limits.CLOCK_TICKS
    assert hang_limits.parse_stat(line) == hang_limits.Process(77, 5, "a (b) c", "S", pytest.approx(1000 / ticks))


def test_a_process_that_ended_between_two_looks_has_no_threads() -> None:
    """Else the watching process dies, and with it every test that comes after."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert hang_limits.read_stats(Path(f"/proc/{process.pid}/task")) == []


def test_the_tree_is_the_descendants_only() -> None:
    table = [
        hang_limits.Process(pid, parent, "", "S", 0.0)
        for pid, parent in [(1, 0), (9, 1), (5, 1), (6, 5), (7, 6), (8, 9)]
    ]
    assert sorted(process.pid for process in hang_limits.tree_of(5, table)) == [5, 6, 7]

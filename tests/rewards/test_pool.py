"""The judge's processes: what they may do, how they die, and that nothing of them is left."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from hang_limits import read_stats
from waiting import gone, until

from openrs.errors import UserError
from openrs.rewards import pool
from openrs.rewards.grading import Item, Judge, Rule

WORKER = Path(pool.__file__).with_name("worker.py")
pytestmark = pytest.mark.slow  # every judge here starts workers of its own, at 1 s of processor time each
QUICK = Item("$4$", r"\boxed{4}", Rule.PAPER)
SLOW = Item("$5$", r"\boxed{3^{1000000000}}", Rule.LATEX_GOLD)  # 10 s: two time-outs of lighteval's
HUNGRY = Item("$5$", r"\boxed{(1+i)^{10^7}}", Rule.PAPER)
NESTED = Item("$5$", r"\boxed{" + r"\sqrt{1+" * 40 + "1" + "}" * 41, Rule.PAPER)  # 1 s of parsing


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if not gone(child.pid) and str(WORKER) in child.cmdline()]


def used(process: psutil.Process) -> float:
    """Seconds of processor time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def spent(pids: list[int]) -> float:
    """Seconds of processor time of those that are still there."""
    return sum(process.processor for process in read_stats(Path("/proc")) if process.pid in pids)


def script(code: str, **environment: str) -> "subprocess.Popen[str]":
    head = "import os, sys\nfrom openrs.rewards.grading import Item, Judge, Rule\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_workers_have_neither_torch_nor_secrets_nor_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with Judge(workers=1) as judge:
        judge.grade([QUICK])
        (worker,) = workers()
        assert not [m.path for m in worker.memory_maps() if "torch" in m.path or "numpy" in m.path]
        assert "HF_TOKEN" not in worker.environ()
        assert os.getsid(worker.pid) == worker.pid
        assert resource.prlimit(worker.pid, resource.RLIMIT_AS)[0] == 2 * 2**30


def test_worker_is_kept_between_calls_and_ended_by_close() -> None:
    judge = Judge(workers=1)
    judge.grade([QUICK])
    (first,) = workers()
    judge.grade([QUICK])
    assert workers() == [first]
    judge.close()
    assert workers() == []
    assert judge.grade([QUICK])[0].verdict == "correct"  # a closed judge starts again
    judge.close()


def test_timeout_kills_the_worker_and_replaces_it() -> None:
    with Judge(workers=1, timeout=3.0) as judge:
        judge.grade([QUICK])
        (first,) = workers()
        slow, quick = judge.grade([SLOW, QUICK])
        assert (slow.verdict, slow.gold, slow.answer, quick.verdict) == ("timeout", "", "", "correct")
        assert gone(first.pid)
        assert len(workers()) == 1


def test_memory_limit_holds() -> None:
    code = """
import resource
hungry = Item('$5$', r'\\boxed{(1+i)^{10^7}}', Rule.PAPER)
with Judge(workers=1, timeout=60, memory_bytes=300 * 2**20) as judge:
    print(*[grade.verdict for grade in judge.grade([hungry, Item('$4$', r'\\boxed{4}', Rule.PAPER)])])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
    out, err = script(code).communicate()
    assert err == ""
    verdicts, peak = out.splitlines()
    assert verdicts == "incorrect correct"
    assert 150 * 2**20 < int(peak) < 300 * 2**20  # without a limit: 1.1 GB


def test_worker_that_held_much_is_replaced_before_the_next_item() -> None:
    with Judge(workers=1, timeout=60, memory_bytes=300 * 2**20) as judge:
        judge.grade([QUICK])
        (first,) = workers()
        hungry, quick = judge.grade([HUNGRY, QUICK])
        assert gone(first.pid)
    assert (hungry.verdict, quick.verdict) == ("incorrect", "correct")


def test_worker_of_a_large_parent_is_kept() -> None:
    code = """
import psutil
held = b'x' * 400 * 2**20
with Judge(workers=1, memory_bytes=300 * 2**20) as judge:
    judge.grade([Item('$4$', r'\\boxed{4}', Rule.PAPER)])
    before = psutil.Process().children()
    judge.grade([Item('$4$', r'\\boxed{4}', Rule.PAPER)] * 3)
    print(len(before), psutil.Process().children() == before)
"""
    assert script(code).communicate() == ("1 True\n", "")


@pytest.mark.parametrize(
    ("number", "item", "expected"),
    [
        (signal.SIGSEGV, SLOW, "crash"),  # the item's own doing
        (signal.SIGXCPU, SLOW, "timeout"),
        (signal.SIGKILL, NESTED, "incorrect"),  # the out-of-memory killer: another worker reaches the verdict
        (signal.SIGTERM, NESTED, "incorrect"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_worker_that_dies_at_work(number: signal.Signals, item: Item, expected: str) -> None:
    with Judge(workers=2, timeout=60) as judge:

        def strike() -> None:
            at_work = until(lambda: next((worker for worker in judge._pool if worker.item == 0), None))
            process = psutil.Process(at_work._process.pid)
            begin = used(process)
            until(lambda: used(process) > begin + 0.3)
            process.send_signal(number)

        striker = threading.Thread(target=strike)
        striker.start()
        grades = judge.grade([item, *[QUICK] * 5])
        striker.join()
    assert [grade.verdict for grade in grades] == [expected, *["correct"] * 5]


def test_started_workers_are_the_ones_that_work() -> None:
    with Judge(workers=2) as judge:
        judge.start()
        begun = workers()
        assert len(begun) == 2
        judge.grade([QUICK] * 4)
        assert workers() == begun


def test_close_ends_the_judging_of_another_thread() -> None:
    judge = Judge(workers=1, timeout=60)
    judge.grade([QUICK])
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            judge.grade([SLOW] * 3)
        except (RuntimeError, OSError, ValueError) as error:  # told so, or met by a pipe that is closed
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    (worker,) = workers()
    until(lambda: used(worker) > 1.0)
    judge.close()
    asking.join()
    assert len(failed) == 1
    assert workers() == []


@pytest.mark.limits(silence=60)  # a judge that overlooks an answer finds it when the item's time is over
def test_answers_that_come_together_are_all_heard() -> None:
    with Judge(workers=1, timeout=100) as judge:
        assert {grade.verdict for grade in judge.grade([QUICK] * 200)} == {"correct"}


def test_what_a_worker_held_when_it_was_stopped_is_judged_by_another() -> None:
    """Slow items and ones that make a worker leave, each with the next one already handed over."""
    with Judge(workers=2, timeout=3.0, memory_bytes=300 * 2**20) as judge:
        grades = judge.grade([QUICK, SLOW, QUICK, QUICK, SLOW, *[QUICK] * 7])
        found = [str(grade.verdict) for grade in grades]
        assert [i for i, verdict in enumerate(found) if verdict == "timeout"] == [1, 4]
        assert found.count("correct") == 10
    with Judge(workers=1, timeout=60, memory_bytes=300 * 2**20) as judge:
        found = [str(grade.verdict) for grade in judge.grade([HUNGRY, QUICK, QUICK, HUNGRY, QUICK, QUICK, QUICK])]
    assert found == ["incorrect", "correct", "correct", "incorrect", "correct", "correct", "correct"]


def test_worker_that_died_idle_is_not_an_items_fault() -> None:
    with Judge(workers=1) as judge:
        judge.grade([QUICK])
        (worker,) = workers()
        worker.send_signal(signal.SIGSEGV)
        until(lambda: gone(worker.pid))
        assert judge.grade([QUICK])[0].verdict == "correct"


def test_worker_that_dies_in_the_middle_of_its_answer() -> None:
    worker = pool.Worker(2**31, 60)
    until(lambda: worker.reply() is None and worker.ready)
    worker.give(0, {"gold": NESTED.gold, "completion": NESTED.completion, "rule": "paper"})
    worker._received += b'{"verdict": "corr'
    os.kill(workers()[0].pid, signal.SIGSEGV)
    replies: list[dict[str, Any] | None] = []
    until(lambda: replies.append(worker.reply()) or replies[-1] is not None)  # type: ignore[func-returns-value]
    assert replies[-1] is not None
    assert replies[-1]["verdict"] == "crash"
    assert worker.gone


def test_what_libraries_print_does_not_mix_with_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """math-verify prints its errors; no input is known that makes it do so, so here it always does."""
    (tmp_path / "sitecustomize.py").write_text(
        "import math_verify\nreal = math_verify.parse\n"
        "def parse(*a, **k):\n    print('Error during parsing', flush=True)\n    return real(*a, **k)\n"
        "math_verify.parse = parse\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Judge(workers=1) as judge:
        assert [grade.verdict for grade in judge.grade([QUICK] * 3)] == ["correct"] * 3


def test_judge_outlives_the_thread_that_started_its_workers() -> None:
    """Linux counts a thread as the parent: its end ends the workers."""
    found: list[str] = []
    with Judge(workers=1) as judge:
        for _ in range(3):
            thread = threading.Thread(target=lambda: found.append(judge.grade([QUICK])[0].verdict))
            thread.start()
            thread.join()
        found.append(judge.grade([QUICK])[0].verdict)
    assert found == ["correct"] * 4


def test_threads_take_turns() -> None:
    found: dict[int, list[str]] = {}

    def ask(n: int) -> None:
        found[n] = [
            grade.gold for grade in judge.grade([Item(f"${n}{i}$", r"\boxed{4}", Rule.PAPER) for i in range(20)])
        ]

    with Judge(workers=2) as judge:
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {n: [f"{n}{i}" for i in range(20)] for n in range(1, 4)}


def test_forked_child_gets_workers_of_its_own() -> None:
    code = """
import psutil
judge = Judge(workers=1)
item = [Item('$4$', r'\\boxed{4}', Rule.PAPER)]
judge.grade(item)
ours = psutil.Process().children()
if (child := os.fork()) == 0:
    os._exit(0 if judge.grade(item)[0].verdict == 'correct' and len(psutil.Process().children()) == 1 else 1)
print(os.waitpid(child, 0)[1], judge.grade(item)[0].verdict, psutil.Process().children() == ours)
if (child := os.fork()) == 0:
    sys.exit(0)  # with all that runs at a normal end
os.waitpid(child, 0)
print(judge.grade(item)[0].verdict, psutil.Process().children() == ours)
"""
    out, err = script(code).communicate()
    assert (out.splitlines(), err) == (["0 correct True", "correct True"], "")


PARENT = """
import threading, psutil
judge = Judge(workers=2, timeout=100)
judge.grade([Item('$4$', r'\\boxed{4}', Rule.PAPER)] * 2)
print(*[child.pid for child in psutil.Process().children()], flush=True)
"""
AT_WORK = "judge.grade([Item('$5$', r'\\boxed{3^{1000000000}}', Rule.LATEX_GOLD)] * 2)\n"


@pytest.mark.parametrize("doing", ["sys.stdin.read()", AT_WORK], ids=["idle", "at work"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_parent_is_ended(doing: str, number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom openrs.rewards.grading import Item, Judge, Rule\n" + PARENT + doing],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    if doing == AT_WORK:
        started = {pid: used(psutil.Process(pid)) for pid in pids}
        until(lambda: all(used(psutil.Process(pid)) > started[pid] + 0.2 for pid in pids))
    parent.send_signal(number)
    parent.communicate()
    before, last = spent(pids), spent(pids)
    while not gone(*pids):
        last = max(last, spent(pids))
        time.sleep(0.02)
    assert last - before < 2  # of processor time: far less than the items at work would take


def test_nothing_is_left_at_the_end_of_a_program_that_forgets_to_close() -> None:
    out, err = script(PARENT).communicate()
    assert err == ""
    until(lambda: all(gone(int(pid)) for pid in out.split()))


def start_worker(seconds: float, platform: str) -> "subprocess.Popen[bytes]":
    """worker.py as it is, told that it runs on another system (that is all that is pretended)."""
    code = f"import runpy, sys; sys.platform = {platform!r}; runpy.run_path({str(WORKER)!r}, run_name='__main__')"
    arguments = [str(os.getpid()), str(2 * 2**30), str(seconds)]
    worker = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b'{"ready": true}\n'
    return worker


def test_without_prctl_an_idle_worker_ends_with_its_input() -> None:
    worker = start_worker(5, "darwin")
    worker.communicate()
    assert worker.returncode == 0


def test_without_prctl_a_busy_worker_has_a_limit_of_processor_time() -> None:
    """Where no signal tells of the parent's death, the kernel ends an endless item all the same."""
    worker = start_worker(0.1, "darwin")
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(b'{"gold": "$4$", "completion": "4", "rule": "paper"}\n')
    worker.stdin.flush()
    worker.stdout.readline()
    soft = resource.prlimit(worker.pid, resource.RLIMIT_CPU)[0]
    assert 2 < soft - used(psutil.Process(worker.pid)) <= 4
    worker.communicate()


def test_worker_whose_parent_is_gone_already_ends_at_once() -> None:
    nobody = str(2**22 + 1)  # above the largest process id
    worker = subprocess.Popen([sys.executable, str(WORKER), nobody, "1000000000", "5"], stdin=subprocess.PIPE)
    assert worker.wait() == 0  # though its input is open
    worker.communicate()


@pytest.mark.parametrize("missing", ["math_verify", "lighteval"])
def test_missing_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    (tmp_path / f"{missing}.py").write_text("raise ModuleNotFoundError(\"No module named 'it'\")\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Judge(workers=1) as judge, pytest.raises(UserError, match="install"):
        judge.grade([QUICK])
    assert workers() == []


def test_workers_that_never_start_are_an_error_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math_verify.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Judge(workers=1) as judge, pytest.raises(RuntimeError, match="while they start"):
        judge.grade([QUICK])


def test_caller_main_is_not_run_again(tmp_path: Path) -> None:
    """As multiprocessing's spawn would: a script without the __name__ guard."""
    program = tmp_path / "script.py"
    program.write_text(
        "print('once')\nfrom openrs.rewards.grading import *\n"
        "with Judge(workers=2) as judge:\n"
        "    print(judge.grade([Item('$4$', '$\\\\boxed{4}$', Rule.PAPER)] * 4)[3].verdict)\n"
    )
    ran = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["once", "correct"]


FLAT = """
import psutil
items = [Item(f'${n}$', 'Okay. ' * 1000 + f'\\\\boxed{{{n}}}', Rule.PAPER) for n in range(100)]
with Judge(workers=2) as judge:
    def memory():
        return psutil.Process().memory_info().rss
    judge.grade(items)
    before = memory()
    for _ in range(int(sys.argv[1])):
        assert {grade.verdict for grade in judge.grade(items)} == {'correct'}
    print(memory() - before)
"""


def growth(rounds: int) -> int:
    """Bytes by which the parent grew over so many hundreds of gradings, after the first hundred."""
    head = "import os, sys\nfrom openrs.rewards.grading import Item, Judge, Rule\n"
    ran = subprocess.run([sys.executable, "-c", head + FLAT, str(rounds)], capture_output=True, text=True, check=True)
    return int(ran.stdout)


def test_parent_memory_stays_flat() -> None:
    assert growth(10) < 2 * 2**20  # a thousand completions of 6 kB are 6 MB


@pytest.mark.soak
def test_parent_memory_stays_flat_over_20_000() -> None:
    assert growth(200) < 2 * 2**20

"""The timed all-reduce for real, over gloo on CPUs, with hangs, crashes and wrong sums injected into its ranks."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from waiting import until

from openrs.config.load import load
from openrs.doctor import allreduce, nccl
from openrs.doctor.allreduce import Try, attempt
from openrs.doctor.nccl import choose, environment, gradient_sizes, measure, mode_of, read
from openrs.errors import RunFailure, UserError

pytestmark = pytest.mark.slow

SKETCH = str(Path(__file__).parents[1] / "exp3_sketch.yaml")
SIZES = (1024, 400_000)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("NCCL_", "OPENRS_NCCL", "TORCH_FR", "TORCH_NCCL"))]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _forked_ranks(fork_python_of: Callable[[ModuleType], None]) -> None:
    pytest.importorskip("torch.distributed", reason="torch is not installed")  # before they are forked
    fork_python_of(allreduce)


def ranks_that(folder: Path, fault: str) -> list[str]:
    """The program of a rank with a fault in it: `fault` is code with `rank`, `os`, `time` and `dist` at hand."""
    script = folder / "rank.py"
    script.write_text(
        "import os, sys, time\n"
        "import torch.distributed as dist\n"
        "from openrs.doctor import allreduce\n"
        "rank = int(sys.argv[3])\n"
        f"open(os.path.join({str(folder)!r}, f'pid-{{rank}}-{{os.getpid()}}'), 'w').close()\n"
        f"{fault}\n"
        "words = sys.argv[1:]\n"
        "allreduce.rank_main(words[0], words[1], rank, int(words[3]), seconds=float(words[4]),"
        " sizes=[int(n) for n in words[5].split(',')])\n"
    )
    return [sys.executable, str(script)]


def left_behind(folder: Path) -> list[int]:
    """Ranks that still run (a zombie of ours would be reaped by now)."""
    pids = [int(path.name.split("-")[2]) for path in folder.glob("pid-*")]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


HANG_WITHOUT_SAFE = """
if rank == 1 and "NCCL_P2P_DISABLE" not in os.environ:
    dist.all_reduce = lambda *_: time.sleep(600)  # as behind a PCIe switch with ACS on
"""


def test_a_hang_is_caught_named_and_the_safe_settings_win(tmp_path: Path) -> None:
    said: list[str] = []
    found = measure(
        tmp_path, ranks=2, sizes=SIZES, backend="gloo", limit=100_000, spend=0.2, stall=10, say=said.append,
        program=ranks_that(tmp_path, HANG_WITHOUT_SAFE),
    )  # fmt: skip
    assert [(one["name"], one["outcome"]) for one in found["evidence"]] == [("defaults", "hang"), ("safe", "ok")]
    assert "rank 1 in the all-reduce of 1,024 bytes" in found["evidence"][0]["detail"]
    assert found["winner"] == "safe"
    assert found["env"] == {"NCCL_P2P_DISABLE": "1"}
    until(lambda: left_behind(tmp_path) == [])
    assert environment(tmp_path, {})["NCCL_P2P_DISABLE"] == "1"
    assert said[0].startswith("defaults: hang, stuck after ")
    assert json.loads((tmp_path / "nccl.json").read_text()) == found


def test_what_works_is_measured_and_checked(tmp_path: Path) -> None:
    one = attempt("defaults", {}, ranks=2, sizes=SIZES, limit=100_000, backend="gloo", spend=0.2)
    assert one.outcome == "ok", one.detail
    assert [size["bytes"] for size in one.sizes] == list(SIZES)
    assert all(size["right"] and size["rounds"] >= 1 for size in one.sizes)
    largest = one.sizes[-1]
    assert one.bandwidth == pytest.approx(400_000 / largest["seconds"] / 1e9)  # 2 (n - 1) / n = 1 for two ranks


@pytest.mark.parametrize(
    ("fault", "outcome", "detail"),
    [
        (
            "if rank == 1: raise RuntimeError('NCCL error: unhandled')",
            "error",
            "rank 1: RuntimeError: NCCL",
        ),
        ("if rank == 1: os.kill(os.getpid(), 7)", "error", "rank 1: ended by signal 7"),
        ("true = dist.all_reduce\ndist.all_reduce = lambda t: (true(t), t.add_(rank))", "wrong", "wrong sums"),
    ],
)
def test_crashes_and_wrong_sums(tmp_path: Path, fault: str, outcome: str, detail: str) -> None:
    program = ranks_that(tmp_path, fault)
    # The limit is far away: the rank that waits for the dead one is not waited for.
    one = attempt("safe", nccl.SAFE, ranks=2, sizes=(1024,), limit=100_000, backend="gloo", program=program, spend=0.1)
    assert (one.outcome, detail in one.detail) == (outcome, True), one
    until(lambda: left_behind(tmp_path) == [])


def test_the_time_limit_is_hard(tmp_path: Path) -> None:
    """Ranks that never come so far as an all-reduce."""
    mark = f"open({str(tmp_path)!r} + f'/pid-x-{{os.getpid()}}', 'w').close()"
    program = [sys.executable, "-c", f"import os, time; {mark}; time.sleep(600)"]
    one = attempt("defaults", {}, ranks=3, sizes=(1024,), start=1, backend="gloo", program=program)
    assert (one.outcome, one.begun, one.bandwidth) == ("slow", False, None)
    assert "still starting" in one.detail
    assert "rank 2 has not started" in one.detail
    until(lambda: left_behind(tmp_path) == [])


class Played:
    """Ranks that print what a script says at its times, on a clock that only `sleep` moves."""

    def __init__(self, folder: Path, lines: list[list[tuple[float, str]]], ends: float) -> None:
        self.clock, self._lines, self._ends = 0.0, lines, ends
        self.outputs = [folder / str(rank) for rank in range(len(lines))]
        self.sleep(0)

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, _: float) -> None:
        self.clock += 5.0
        for path, lines in zip(self.outputs, self._lines, strict=True):
            path.write_text("".join(f'{{"at": "{word}"}}\n' for at, word in lines if at <= self.clock))

    def poll(self) -> int | None:
        return 0 if self.clock >= self._ends else None


@pytest.mark.parametrize(
    ("lines", "ends", "says"),
    [
        ([[(120, "joining"), (160, "all-reduce")], [(170, "all-reduce")]], 190, None),  # a cold node
        ([[(10, "all-reduce")], [(100, "joining"), (150, "all-reduce")]], 165, None),  # NCCL: joins without the others
        ([[(10, "all-reduce")], [(100, "joining")]], 900, "slow"),
        ([[(100, "all-reduce")], [(100, "all-reduce")]], 900, "hang"),
        ([[(100, "all-reduce"), *((100 + 10 * n, "measured") for n in range(90))], [(100, "all-reduce")]], 900, "hang"),
    ],
)
def test_the_clock_starts_at_the_first_all_reduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[list[tuple[float, str]]], ends: float, says: str | None
) -> None:
    played = Played(tmp_path, lines, ends)
    monkeypatch.setattr(allreduce, "time", played)
    late = allreduce._wait(
        [played, played],  # type: ignore[list-item]
        played.outputs, start=allreduce.START, limit=allreduce.LIMIT, stall=allreduce.STALL,
    )  # fmt: skip
    assert late == says


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import sys; sys.exit('no device')", "could not be measured: defaults: error, rank 0: no device; safe: error"),
        ("import time; time.sleep(600)", "could not be measured: defaults: slow, still starting"),
    ],
)
def test_ranks_that_never_all_reduce_say_nothing_of_nccl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)  # torch is loaded already
    words = [sys.executable, "-c", program]
    with pytest.raises(RunFailure, match=says):
        measure(tmp_path, ranks=2, sizes=(1024,), backend="gloo", start=1.0, program=words)
    assert list(tmp_path.iterdir()) == []
    assert "NCCL_P2P_DISABLE" not in environment(tmp_path, {})  # a later train is not refused


def test_when_nothing_works_it_is_refused_with_the_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)  # torch is loaded already
    stays = [sys.executable, "-c", """print('{"at": "all-reduce"}', flush=True); import time; time.sleep(600)"""]
    with pytest.raises(UserError, match="GPUs cannot talk to each other: defaults: hang"):
        measure(tmp_path, ranks=2, sizes=(1024,), backend="gloo", stall=0.3, program=stays)
    assert json.loads((tmp_path / "nccl.json").read_text())["winner"] is None
    with pytest.raises(UserError, match="could not talk to each other when it was measured"):
        environment(tmp_path, {})
    assert "NCCL_P2P_DISABLE" in environment(tmp_path, {"OPENRS_NCCL": "safe"})


def test_ctrl_c_takes_the_ranks_along(tmp_path: Path) -> None:
    ranks_that(tmp_path, "time.sleep(600)")
    code = (
        "from openrs.doctor.allreduce import attempt; import sys\n"
        "attempt('defaults', {}, ranks=2, sizes=(1024,), limit=300, backend='gloo', "
        f"program=[sys.executable, {str(tmp_path / 'rank.py')!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        until(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        process.send_signal(signal.SIGINT)
        process.wait()
    until(lambda: left_behind(tmp_path) == [])


def tried(name: str, outcome: str, bandwidth: float | None) -> Try:
    env = nccl.SAFE if name == "safe" else {}
    return Try(name, env, outcome, True, 1.0, bandwidth, [], "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("defaults", "safe", "winner"),
    [
        (("ok", 10.0), ("ok", 10.4), "defaults"),  # no more than noise
        (("ok", 10.0), ("ok", 12.0), "safe"),
        (("ok", 10.0), ("hang", None), "defaults"),
        (("hang", None), ("ok", 3.0), "safe"),
        (("wrong", 90.0), ("ok", 3.0), "safe"),
        (("error", None), ("hang", None), None),
    ],
)
def test_the_winner(defaults: tuple[str, float | None], safe: tuple[str, float | None], winner: str | None) -> None:
    best = choose([tried("defaults", *defaults), tried("safe", *safe)])
    assert (best.name if best else None) == winner


def test_each_mode_sets_what_the_table_says(tmp_path: Path) -> None:
    everywhere = {"NCCL_DEBUG", "TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_FR_DUMP_TEMP_FILE"}
    assert set(environment(tmp_path, {"OPENRS_NCCL": "off"})) == everywhere
    assert set(environment(tmp_path, {"OPENRS_NCCL": "safe"})) == everywhere | {"NCCL_P2P_DISABLE"}
    assert set(environment(tmp_path, {})) == everywhere  # nothing measured yet: NCCL's own defaults
    table = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    for name in everywhere | set(nccl.SAFE):
        assert f"`{name}" in table, f"docs/doctor.md does not say why {name} is set"


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    given = {"NCCL_P2P_DISABLE": "0", "NCCL_DEBUG": "INFO", "OPENRS_NCCL": "safe"}
    found = environment(tmp_path, given)
    assert "NCCL_P2P_DISABLE" not in found
    assert "NCCL_DEBUG" not in found


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"winner": "safe"}', '{"env": {"LD_PRELOAD": "evil.so"}, "winner": "safe"}', '{"env": 3}']
)
def test_a_damaged_or_foreign_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "nccl.json").write_text(text)
    with pytest.raises(UserError, match="damaged, or sets what openrs never sets"):
        read(tmp_path)


def test_modes() -> None:
    assert mode_of({}) == "auto"
    assert mode_of({"OPENRS_NCCL": " Safe "}) == "safe"
    with pytest.raises(UserError, match="OPENRS_NCCL=fast is not a mode"):
        mode_of({"OPENRS_NCCL": "fast"})


def test_sizes_are_the_runs_own() -> None:
    assert gradient_sizes(1_777_088_000, 2) == (1 << 20, 1_000_000_000)  # DeepSpeed's bucket of 5e8 elements in bf16
    assert gradient_sizes(18_000_000, 2) == (1 << 20, 36_000_000)  # LoRA: all of its gradients


def test_the_verb_where_there_is_nothing_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    nccl.run(load("demo"), tmp_path / "demo", 0, said.append)
    nccl.run(None, tmp_path / "one", 1, said.append)
    monkeypatch.setenv("OPENRS_NCCL", "off")
    nccl.run(load(SKETCH), tmp_path / "off", 0, said.append)
    assert [line.split(":")[0] for line in said] == [
        "this recipe runs without GPUs", "one GPU", "OPENRS_NCCL=off",
    ]  # fmt: skip
    assert environment(tmp_path / "one", {}).get("NCCL_P2P_DISABLE") is None
    assert not (tmp_path / "off").exists()
    monkeypatch.delenv("OPENRS_NCCL")
    with pytest.raises(UserError, match="between 4 GPUs, this machine has none"):
        nccl.run(load(SKETCH), tmp_path / "exp3", 0, said.append)

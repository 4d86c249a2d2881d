"""scripts/gpu-check: each way a part can end, by stand-ins; all of it, at toy sizes on the CPU, in `-m soak`."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu_check
import gpu_check_page

ROOT = Path(__file__).parents[2]
GOOD = "import json, sys; json.dump({'rows': [['a'], [sys.argv[-1]]], 'said': '<b>x</b>'}, open(sys.argv[-1], 'w'))"
WRONG = "import json, sys; json.dump({'wrong': ['not the same update']}, open(sys.argv[-1], 'w')); sys.exit(1)"
HANGS = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"


def part(name: str, program: str, limit: float = 60.0, needs: str = "") -> gpu_check.Part:
    return gpu_check.Part(name, f"the part {name}", [sys.executable, "-c", program], limit, needs=needs)


def checked(
    out: Path, monkeypatch: pytest.MonkeyPatch, *chosen: gpu_check.Part, minutes: float = 5.0
) -> dict[str, Any]:
    monkeypatch.setattr(gpu_check, "versions", lambda *_, **__: {"torch": "0", "why": "a stand-in <script>"})
    args = argparse.Namespace(out=out, cpu=True, minutes=minutes)
    code = gpu_check.check(args, chosen)
    document: dict[str, Any] = json.loads((out / "gpu-check.json").read_text())
    assert code == (0 if all(one["state"] == "passed" for one in document["parts"]) else 1)
    return {one["name"]: one for one in document["parts"]}


@pytest.mark.slow
def test_a_part_that_fails_or_hangs_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "SHORTEST", 0.0)
    out = tmp_path / "out"
    out.mkdir()
    found = checked(
        out, monkeypatch,
        part("hangs", HANGS, limit=1.0), part("wrong", WRONG), part("dies", "import os; os.abort()"),
        part("words", f"import sys; sys.exit('no such file: {out}/runs')"), part("silent", "pass"),
        part("after", GOOD, needs="dies"), part("good", GOOD),
    )  # fmt: skip
    assert {name: one["state"] for name, one in found.items()} == {
        "hangs": "failed", "wrong": "failed", "dies": "failed", "words": "failed", "silent": "failed",
        "after": "skipped", "good": "passed",
    }  # fmt: skip
    assert "took longer than 1 s" in found["hangs"]["why"]
    assert found["wrong"]["why"] == "not the same update"
    assert found["dies"]["why"] == "exit code -6, without a word"
    assert found["words"]["why"] == "exit code 1: no such file: OUT/runs"
    assert found["after"]["why"] == "it needs what dies leaves"
    grandchild = int((out / "hangs.log").read_text())
    state = Path(f"/proc/{grandchild}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    page = (out / "gpu-check.html").read_text()
    assert found["good"]["found"]["rows"] == [["a"], ["OUT/good.json"]]
    assert "<b>x</b>" not in page  # what parts say is text
    assert "&lt;b&gt;x" in page
    assert "<script>" not in page
    assert "no figure here is a GPU" in page
    assert str(tmp_path) not in page + (out / "gpu-check.json").read_text()


def test_without_time_left_a_part_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked(tmp_path, monkeypatch, part("late", GOOD), minutes=0.1)
    assert (found["late"]["state"], found["late"]["why"]) == ("skipped", "no time left for it")


@pytest.mark.parametrize("cpu", [True, False])
def test_the_parts_fit_into_ten_minutes_and_name_what_exists(tmp_path: Path, *, cpu: bool) -> None:
    parts = gpu_check.parts(tmp_path, cpu=cpu)
    names = [one.name for one in parts]
    assert names == ["doctor", "recorded", "tiny", "train", "resume", "step", "fp32", "evaluate"]
    for one in parts:
        assert one.needs in {"", *names[: names.index(one.name)]}
        assert all(Path(word).is_file() for word in one.command if word.endswith(".py"))
        assert ("--cpu" in one.command) == (cpu and one.name not in {"doctor", "evaluate"})
    environment = gpu_check.environment(tmp_path, cpu=cpu)
    assert environment["CUDA_VISIBLE_DEVICES"] == ("" if cpu else os.environ.get("CUDA_VISIBLE_DEVICES", "0")[:1])
    assert environment.get("DS_ACCELERATOR") == ("cpu" if cpu else None)


def test_a_wrong_call_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a result of yesterday")
    for words, says in (
        (["--cpu", "--out", str(tmp_path)], "is not empty"),
        (
            ["--cpu", "--out", str(tmp_path / "new"), "--only", "nothing"],
            "no part is called nothing; there are doctor,",
        ),
        (["--cpu", "--out", str(tmp_path / "new"), "--wheels", str(tmp_path)], "it holds no wheels"),
    ):
        done = subprocess.run([ROOT / "scripts" / "gpu-check", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert says in done.stderr


def test_every_wheel_that_is_carried_is_in_the_lock() -> None:
    lock = (ROOT / "locks" / "cuda-py312.txt").read_text()
    assert [name for name in gpu_check.WHEELS if f"\n{name}==" not in lock] == []


def test_the_page_of_a_gpu_names_it() -> None:
    document = {
        "rehearsal": False, "started": "now", "seconds": 1, "commit": "abc", "cpu": "a CPU", "clocks_after": None,
        "versions": {"device": "a stand-in GPU"}, "clocks_before": {"clocks.sm": "1 MHz"}, "parts": [],
    }  # fmt: skip
    page = gpu_check_page.page(document)
    assert "openrs on a stand-in GPU: 0 of 0 parts passed" in page
    assert "before: clocks.sm" in page
    assert "rehearsal" not in page


@pytest.mark.soak
@pytest.mark.limits(processor=600, silence=900)
def test_the_whole_rehearsal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [ROOT / "scripts" / "gpu-check", "--cpu", "--out", str(out), "--minutes", "30"]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "OPENRS_PYTHON": sys.executable}
    )
    document = json.loads((out / "gpu-check.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert [one["why"] for one in document["parts"] if one["state"] != "passed"] == []
    found = {one["name"]: one["found"] for one in document["parts"]}
    assert found["resume"]["bit_equal"]
    assert set(found["step"]["ratios"]) == {f"gpu_step/{path}_of_published" for path in ("trl", "rows", "packed")}
    assert str(tmp_path) not in (out / "gpu-check.html").read_text()

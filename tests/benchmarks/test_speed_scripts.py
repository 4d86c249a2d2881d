"""The benchmarks run: gpu_step.py end to end at a toy size, every other's --help, and the guard against losses."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest

from openrs.config.load import load
from openrs.planner.gpus import find
from openrs.planner.memory import trainer_parts
from openrs.planner.workload import workload_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, *map(str, words)])


def test_gpu_step_takes_the_planner_at_its_words() -> None:
    """Parts of the planner that come and go with an update are those that gpu_step compares with what it measures."""
    source = (BENCHMARKS / "gpu_step.py").read_text(encoding="utf-8")
    named = ast.literal_eval(re.search(r"OF_AN_UPDATE = (\(.*?\))", source, re.DOTALL)[1])  # type: ignore[index]
    parts = trainer_parts(workload_of(load("exp3"), find("A40")))
    assert {part.name for part in parts if part.phase == "update"} - {"gradient buckets"} == set(named)


@pytest.mark.slow
def test_gpu_step_compares_all_paths_on_a_cpu(tmp_path: Path) -> None:
    """It ends with another exit code when a path's loss or gradient is not the first one's."""
    out = tmp_path / "found.json"
    done = run(BENCHMARKS / "gpu_step.py", "--small", "--cpu", "--groups", 1, "--repeats", 1, "--json", out)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["device"] == "CPU"
    assert found["wrong"] == []
    assert all(sizes["planned"] > 0 for sizes in found["update_memory"].values())
    assert set(found["ratios"]) == {f"gpu_step/{path}_of_published" for path in ("trl", "rows", "packed")}
    rows = {row[0]: dict(zip(found["rows"][0], row, strict=True)) for row in found["rows"][1:]}
    assert len(rows) == 11
    assert all("apart" in row["check"] and row["tokens/s"] > 0 for row in rows.values())
    padding = {path: rows[f"{path}, sdpa, checkpointing, 6 rows"]["padding"] for path in ("published", "trl", "packed")}
    assert padding["packed"] == "0%"
    assert int(padding["trl"].rstrip("%")) >= int(padding["published"].rstrip("%")) > 10


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.name)
def test_help(script: Path) -> None:
    if script.name in {"common.py", "judge_numbers.py", "judge_pairs.py", "update_paths.py", "report_large.py",
                       "gpu_check_page.py"}:  # fmt: skip
        pytest.skip("has no options")
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout or script.name in {"evaluation.py", "gpu_check.py", "study_simulation.py"}


SCRIPT = """
import json, sys
from pathlib import Path
count = Path(__file__).with_name("count")
done = int(count.read_text()) if count.is_file() else 0
count.write_text(str(done + 1))
values = {values}
ratio = {{"value": values[done], "low": 0.1, "high": 9.0, "n": 5}}
Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps({{"ratios": {{"r": ratio}}}}))
"""


@pytest.mark.parametrize(
    ("better", "values", "code", "runs", "says"),
    [
        ("lower", [1.09], 0, 1, "ok     r: 1.09"),
        ("lower", [1.2, 1.3, 1.25], 1, 3, "LOST   r: 1.25"),
        ("lower", [1.5, 1.05, 1.0], 0, 3, "ok     r: 1.05"),
        ("higher", [0.92], 0, 1, "ok     r: 0.92"),
        ("higher", [0.8, 0.8, 0.8], 1, 3, "LOST   r: 0.8"),
        ("lower", [0.5], 0, 1, "gained r: 0.5"),
    ],
)
def test_check_flags_a_tenth(better: str, values: list[float], code: int, runs: int, says: str, tmp_path: Path) -> None:
    shutil.copy(BENCHMARKS / "check", tmp_path)
    (tmp_path / "fake.py").write_text(SCRIPT.format(values=values))
    missing = {"command": ["fake.py"], "venv": ".venv-nowhere", "ratios": {"x": {"value": 1.0, "better": "lower"}}}
    kept = [{"command": ["fake.py"], "ratios": {"r": {"value": 1.0, "better": better}}}, missing]
    (tmp_path / "ratios.json").write_text(json.dumps({"runs": kept}))
    done = run(tmp_path / "check")
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stdout
    assert ".venv-nowhere is not here" in done.stdout
    assert (tmp_path / "count").read_text() == str(runs)


def test_check_keeps_what_it_measured(tmp_path: Path) -> None:
    shutil.copy(BENCHMARKS / "check", tmp_path)
    (tmp_path / "fake.py").write_text(SCRIPT.format(values=[0.7]))
    kept = {"runs": [{"command": ["fake.py"], "ratios": {"r": {"value": 1.0, "better": "lower"}}}]}
    (tmp_path / "ratios.json").write_text(json.dumps(kept))
    assert run(tmp_path / "check", "--keep").returncode == 0
    assert json.loads((tmp_path / "ratios.json").read_text())["runs"][0]["ratios"]["r"]["value"] == 0.7


@pytest.mark.slow
def test_all_prints_one_table_and_what_is_left_out(tmp_path: Path) -> None:
    """The short ones unless asked for more; measured by the scripts, not read from the kept ratios."""
    for name in ("all", "check", "common.py"):
        shutil.copy(BENCHMARKS / name, tmp_path)
    (tmp_path / "fake.py").write_text(SCRIPT.format(values=[0.7, 0.8]))
    short = {"command": ["fake.py"], "against": "a script", "quick": True,
             "ratios": {"r": {"value": 0.75, "better": "lower"}}}  # fmt: skip
    missing = {"command": ["vllm.py"], "against": "x", "venv": ".venv-nowhere", "ratios": {}}
    (tmp_path / "ratios.json").write_text(json.dumps({"runs": [short, missing]}))
    done = run(tmp_path / "all")
    assert done.returncode == 0, done.stdout + done.stderr
    row = done.stdout.splitlines()[2]
    assert re.fullmatch(r"r +a script +0\.7 \(0\.1 to 9, n 5\) +lower +0\.75", row)
    assert "left out" not in done.stdout
    assert "left out: vllm.py: .venv-nowhere is not here" in run(tmp_path / "all", "--long").stdout
    assert (tmp_path / "count").read_text() == "2"
    done = run(tmp_path / "all", "--only", "nothing")
    assert done.returncode == 2
    assert "fake.py, vllm.py" in done.stderr


def test_every_kept_ratio_has_a_script() -> None:
    for one in json.loads((BENCHMARKS / "ratios.json").read_text())["runs"]:
        assert (BENCHMARKS / one["command"][0]).is_file()
        assert one["against"]
        assert all(kept["better"] in {"lower", "higher"} and kept["value"] > 0 for kept in one["ratios"].values())

"""The doctor on recorded machines (typed after the tools' documentation, broken ones too) and on this one, for real."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import forked
import pytest
from recorded_machine import GOOD_FILES, RECORDED, TORCH, Recorded, machine

from openrs.config.load import load
from openrs.config.schema import Recipe
from openrs.doctor import checks_cache, checks_gpu, checks_system, doctor, nvidia, probe
from openrs.doctor.doctor import code, examine, render, verdict
from openrs.doctor.finding import Finding
from openrs.doctor.probe import CommandResult, Probe
from openrs.errors import EXIT_DONE, EXIT_REFUSED, UserError
from openrs.planner.plan import plan

SKETCH = str(Path(__file__).parents[1] / "exp3_sketch.yaml")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HF_ENDPOINT", "HF_HUB_CACHE", "OPENRS_LOCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def gpu_lines(probe: Recorded, recipe: Recipe | None = None) -> dict[str, Finding]:
    mine = plan(recipe) if recipe is not None else None
    return {line.name: line for line in checks_gpu.lines(probe, nvidia.look(probe), mine, quick=False)}


# --- GPUs -------------------------------------------------------------------------------------------------------------


def test_a_good_machine_for_exp3() -> None:
    found = gpu_lines(machine(), load(SKETCH))
    assert {name: line.state for name, line in found.items()} == {
        "driver": "ok", "GPUs": "ok", "GPU model": "ok", "GPU memory": "ok", "other processes": "ok", "ECC": "ok",
        "clocks": "ok", "persistence": "ok", "PCIe": "ok", "topology": "ok", "ACS": "ok", "IOMMU": "ok",
    }  # fmt: skip
    assert found["GPUs"].found == "4 x NVIDIA A40"
    assert found["PCIe"].found == "generation 4 x16"
    assert "4 pairs over SYS" in found["topology"].found


def test_a_bad_machine_says_all_of_it() -> None:
    found = gpu_lines(machine("rtx4090_driver535.xml"), load(SKETCH))
    states = {name: line.state for name, line in found.items()}
    assert states == {
        "driver": "fail", "GPUs": "fail", "GPU model": "info", "GPU memory": "fail", "other processes": "warn",
        "ECC": "info", "clocks": "warn", "persistence": "warn", "PCIe": "warn",
    }  # fmt: skip
    assert found["driver"].found == "535.86.05"
    assert "hw thermal slowdown (88 C)" in found["clocks"].found
    assert "python3 (pid 4242)" in found["other processes"].found
    assert "fewer lanes" in found["PCIe"].found
    assert found["GPU memory"].found == "6.1 GiB free on the fullest"
    assert all(line.fix for line in found.values() if line.state in {"fail", "warn"})


def test_an_unknown_gpu_is_unknown_and_no_crash() -> None:
    found = gpu_lines(machine("unknown_gpu.xml"), load(SKETCH))
    unknown = {name for name, line in found.items() if line.state == "unknown"}
    assert unknown == {"driver", "GPU model", "GPU memory", "other processes", "clocks", "persistence", "PCIe"}
    assert found["GPUs"].found == "1 x NVIDIA GB10"


def changed(old: str, new: str, count: int = -1) -> Recorded:
    xml = (RECORDED / "a40x4.xml").read_text().replace(old, new, count)
    assert xml != (RECORDED / "a40x4.xml").read_text()
    base = machine()
    return Recorded(tools={**base.tools, "nvidia-smi -q": CommandResult(0, xml)}, files=base.files)


@pytest.mark.parametrize(
    ("old", "new", "name", "state"),
    [
        ("<dram_uncorrectable>0<", "<dram_uncorrectable>3<", "ECC", "fail"),
        ("<remapped_row_failure>No<", "<remapped_row_failure>Yes<", "ECC", "fail"),
        ("<remapped_row_pending>No<", "<remapped_row_pending>Yes<", "ECC", "warn"),
        ("<current_mig>N/A<", "<current_mig>Enabled<", "MIG", "fail"),
        ("<driver_version>580.95.05<", "<driver_version>570.124.06<", "driver", "fail"),
        ("<free>45467 MiB<", "<free>20000 MiB<", "GPU memory", "fail"),
        ("<used>1 MiB<", "<used>9000 MiB<", "other processes", "warn"),
        ("<max_link_gen>4<", "<max_link_gen>3<", "PCIe", "warn"),
        ("<current_link_width>16x<", "<current_link_width>4x<", "PCIe", "warn"),
        ("<product_name>NVIDIA A40<", "<product_name>NVIDIA L40S<", "GPU model", "warn"),
        ("sw_power_cap>Not Active<", "sw_power_cap>Active<", "clocks", "info"),
        ("<persistence_mode>Enabled<", "<persistence_mode>Disabled<", "persistence", "warn"),
    ],
)
def test_each_fault_of_one_gpu_is_seen(old: str, new: str, name: str, state: str) -> None:
    assert gpu_lines(changed(old, new, 1), load(SKETCH))[name].state == state


def test_other_gpus_than_the_recipes_are_named_not_refused() -> None:
    found = gpu_lines(changed("NVIDIA A40", "NVIDIA H100 80GB HBM3"), load(SKETCH))["GPU model"]
    assert (found.state, found.found, found.needed) == ("info", "H100", "A40")
    assert "openrs plan RECIPE --gpu 'H100'" in found.fix


@pytest.mark.parametrize(
    ("devices", "there"),
    [("0,1", 2), ("", 0), ("-1", 0), ("3", 1), ("GPU-00000002", 1), ("0,GPU-00000003", 2), ("nonsense", 4), ("9", 4)],
)
def test_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch, devices: str, there: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert len(checks_gpu.visible(nvidia.look(machine()).gpus)) == there


@pytest.mark.parametrize(
    ("topo", "lspci", "files", "states"),
    [
        ("topo_a40x4_roots.txt", "lspci_acs_on.txt", {"/sys/kernel/iommu_groups/1": ""}, ("ok", "ok", "ok")),
        ("topo_a40x4_switch.txt", "lspci_acs_on.txt", {"/sys/kernel/iommu_groups/1": ""}, ("ok", "warn", "warn")),
        ("topo_a40x4_switch.txt", "lspci_acs_off.txt", {}, ("ok", "ok", "ok")),
        ("topo_a40x4_switch.txt", "lspci_user.txt", {}, ("ok", "unknown", "ok")),
        ("topo_a40x4_roots.txt", "lspci_user.txt", {}, ("ok", "info", "ok")),
        ("topo_nvlink_bridges.txt", "lspci_acs_off.txt", {}, ("ok", "ok", "ok")),
        ("lspci_user.txt", "lspci_acs_on.txt", {}, ("unknown", "warn", "ok")),  # no matrix in it
    ],
)
def test_topology_acs_and_iommu(topo: str, lspci: str, files: dict[str, str], states: tuple[str, ...]) -> None:
    found = gpu_lines(machine(topo=topo, lspci=lspci, files=files))
    assert (found["topology"].state, found["ACS"].state, found["IOMMU"].state) == states


def test_iommu_in_pass_through_is_fine() -> None:
    files = {"/proc/cmdline": "intel_iommu=on iommu=pt", "/sys/kernel/iommu_groups/1": ""}
    assert gpu_lines(machine(topo="topo_a40x4_switch.txt", files=files))["IOMMU"].found == "pass-through"


def test_no_gpus_where_they_are_needed_and_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Recorded(files=GOOD_FILES)
    assert gpu_lines(bare)["GPUs"].state == "info"
    needed = gpu_lines(bare, load(SKETCH))["GPUs"]
    assert (needed.state, needed.needed) == ("fail", "4 x A40")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "0,1,2,3")
    assert "container toolkit" in gpu_lines(bare, load(SKETCH))["GPUs"].fix


# --- the machine around them ------------------------------------------------------------------------------------------


def test_ram_and_cores_within_the_containers_limits() -> None:
    mine = plan(load(SKETCH))
    assert checks_system.memory(machine(), mine).state == "ok"
    small = machine(files={"/sys/fs/cgroup/memory.max": str(16 * 2**30) + "\n"})
    assert checks_system.memory(small, mine).state == "fail"
    assert "the container may use 16.0 GiB" in checks_system.memory(small, mine).found
    old = machine(files={"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})
    assert "container" not in checks_system.memory(old, mine).found
    busy = machine(files={"/proc/meminfo": "MemTotal: 263856000 kB\nMemAvailable: 1000 kB\n"})
    assert checks_system.memory(busy, mine).state == "warn"
    assert checks_system.memory(Recorded(), mine).state == "unknown"
    half = machine(files={"/sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert "the container may use 0.5" in checks_system.processors(half, mine).found
    assert checks_system.processors(half, mine).state == "warn"
    assert checks_system.processors(machine(files={"/sys/fs/cgroup/cpu.max": "max 100000"}), None).state == "ok"


def test_shared_memory_of_docker_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"/dev/shm": 64 << 20}
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": sizes[path]})())
    line = checks_system.limits(4)[0]
    assert (line.name, line.state, line.found) == ("/dev/shm", "fail", "64.0 MiB")
    assert "--shm-size" in line.fix
    assert checks_system.limits(0)[0].state == "ok"
    sizes["/dev/shm"] = 8 << 30
    assert checks_system.limits(4)[0].state == "ok"


def test_disks_are_compared_with_the_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 50e9})())
    mine = plan(load(SKETCH))
    [line] = checks_system.volumes(mine, tmp_path / "runs" / "exp3")
    assert (line.name, line.state) == ("disk of runs and cache", "fail")
    assert line.needed == "82.8 GiB"
    assert checks_system.volumes(None, tmp_path)[0].state == "ok"


def test_writing_is_timed_and_leaves_nothing(tmp_path: Path) -> None:
    line = checks_system.writing(tmp_path / "not" / "yet", 28e9)
    assert line.state in {"ok", "warn"}
    assert "MB/s" in line.found
    assert "a checkpoint of 26.1 GiB takes" in line.found
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    line = checks_system.writing(Path("/proc/self"), 0.0)
    assert line.state == "fail"
    assert "cannot be written" in line.found


@pytest.mark.slow
def test_lock_drift(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    monkeypatch.setenv("OPENRS_LOCK", str(lock))
    lock.write_text(f"# made by uv\npydantic==2.14.3 \\\n    --hash=sha256:00\ntorch=={version('torch')}\n")
    assert checks_system.packages().found == "2 as in lock.txt"
    lock.write_text("pydantic==2.14.3 ; python_version >= '3'\npydantic==0.1 ; python_version < '3'\n")
    assert checks_system.packages().found == "1 as in lock.txt"
    lock.write_text("Torch==2.12.0\npydantic==2.14.3\n")
    assert checks_system.packages().state == "fail"
    assert f"torch {version('torch')} (locked 2.12.0)" in checks_system.packages().found
    lock.write_text("pydantic==1.0\nno-such-package==1.0\n")
    assert checks_system.packages().state == "warn"
    lock.write_text("no-such-package==1.0\npydantic==2.14.3")
    assert "1 not installed (no-such-package)" in checks_system.packages().found
    monkeypatch.setenv("OPENRS_LOCK", str(tmp_path / "none.txt"))
    assert "openrs's own pins" in checks_system.packages().found + checks_system.packages().needed


def test_clock() -> None:
    assert checks_system.clock(time.time() + 5).state == "ok"
    assert checks_system.clock(time.time() - 3600).state == "fail"
    assert checks_system.clock(None).state == "ok"


def test_container_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    files = {"/.dockerenv": "", "/proc/mounts": "overlay / overlay ro,relatime 0 0\n", "/sys/fs/cgroup/pids.max": "100"}
    line = checks_system.container(machine(files=files))
    assert line.found.startswith("a container, user ")
    assert "root file system read-only, at most 100 processes" in line.found
    assert line.state == "warn"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert checks_system.container(Recorded()).found.startswith("Kubernetes")


# --- hub, cache ------------------------------------------------------------------------------------------------


def test_an_unpinned_or_missing_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Recorded(tools={sys.executable: CommandResult(0, TORCH)})
    lines, _ = checks_cache.lines(probe, load(SKETCH), quick=False)
    cache = next(line for line in lines if line.name == "cache")
    assert cache.state == "fail"  # HF_HUB_OFFLINE is set: nothing can be fetched any more
    assert "not fetched yet" in cache.found
    assert not any(line.name == "hub" for line in lines)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    lines, _ = checks_cache.lines(probe, load(SKETCH), quick=False)
    assert next(line.state for line in lines if line.name == "cache") == "warn"
    assert next(line.state for line in lines if line.name == "hub") == "fail"
    loose = load(SKETCH).model_copy(update={"model": load(SKETCH).model.model_copy(update={"revision": "main"})})
    lines, _ = checks_cache.lines(probe, loose, quick=True)
    assert (lines[0].name, lines[0].state) == ("pins", "fail")


def test_the_hub_answers_and_tells_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from fake_hub import FakeHub

    before = time.time()
    with FakeHub({}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url + "/nobody/here")
        line, hub_time = checks_cache.hub_line()
    assert line.state == "ok"  # a 404 is an answer
    assert hub_time is not None
    assert before - 2 < hub_time < time.time() + 2
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc/passwd")
    assert checks_cache.hub_line()[0].state == "fail"


@pytest.mark.slow
def test_the_tokenizer_of_a_model_folder(shared_data: Path, fork_python_of: Callable[[ModuleType], None]) -> None:
    """Really loaded, in a child process, by the check that training uses."""
    fork_python_of(probe)
    line = checks_cache.tokenizer_line(Probe(120.0), shared_data / "tokenizer")
    assert line.state == "ok", line
    assert "round trip, 1 BOS" in line.found


def test_a_broken_tokenizer_and_a_broken_child() -> None:
    refused = Recorded(
        tools={sys.executable: CommandResult(1, 'a warning\nopenrs:{"refused": "tokenizer.json is no tokenizer"}\n')}
    )
    line = checks_cache.tokenizer_line(refused, Path("model"))
    assert (line.state, line.found) == ("fail", "tokenizer.json is no tokenizer")
    assert checks_cache.tokenizer_line(Recorded(), Path("model")).state == "unknown"


# --- all together -----------------------------------------------------------------------------------------------------


def test_the_whole_answer_on_a_good_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = type("Usage", (), {"free": 900e9, "total": 900e9})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(checks_cache, "problems", lambda *_, **__: [])
    monkeypatch.setattr(checks_cache, "snapshot", lambda *_: None)
    monkeypatch.setattr(checks_system, "packages", lambda: Finding("packages", "ok", "all"))
    lines = examine(load(SKETCH), tmp_path, machine(), quick=False)
    assert code(lines) == EXIT_DONE, render(lines, "exp3")
    assert verdict(lines, "exp3") == "exp3: ready"
    assert len({line.name for line in lines}) == len(lines) == 32


@pytest.mark.slow
def test_nothing_at_all_is_known_and_nothing_crashes(tmp_path: Path) -> None:
    for recipe in (None, load(SKETCH), load("demo")):
        lines = examine(recipe, tmp_path, Recorded(), quick=False)
        assert render(lines, "x")
        assert json.dumps([asdict(line) for line in lines])


def test_a_tool_that_hangs_is_left_behind(tmp_path: Path) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho begin\nsleep 600 &\nsleep 600\n")
    script.chmod(0o755)
    said = Probe(0.3).run(str(script))
    assert said.code is None
    assert "gave no answer in 0.3 s" in said.why  # and it came back at all: the tool itself takes ten minutes


def test_requiring_gpus_is_one_line() -> None:
    doctor.require_gpus(load("demo"), "demo")
    if nvidia.look(Probe()).gpus:
        pytest.skip("this machine has GPUs")
    with pytest.raises(UserError) as refused:
        doctor.require_gpus(load(SKETCH), "exp3")
    assert "\n" not in str(refused.value)
    assert "exp3 needs 4 x A40, this machine has none" in str(refused.value)
    assert "openrs train exp3 --dry-run" in str(refused.value)


def openrs(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openrs.cli", "doctor", *words]
    return forked.run(command, env={**os.environ, "OMP_NUM_THREADS": "1", **settings})


@pytest.mark.slow
def test_quick_on_this_machine() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "openrs.cli", "doctor", "--quick", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in {EXIT_DONE, EXIT_REFUSED}, done.stderr
    answer = json.loads(done.stdout)
    assert answer["exit"] == done.returncode
    assert {"name", "state", "found", "needed", "fix"} == set(answer["lines"][0])
    names = [line["name"] for line in answer["lines"]]
    assert "torch" not in names
    assert "writing" not in names
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 10  # of processor time; one on a quiet machine, and nothing heavy is loaded


@pytest.mark.slow
def test_the_command_for_a_person() -> None:
    done = openrs("demo", "--quick")
    assert "Traceback" not in done.stderr
    assert "ok    Python" in done.stdout
    if not nvidia.look(Probe()).gpus:
        assert "No GPU here. What runs: reproduce demo, report" in done.stdout
        needs = openrs(SKETCH, "--quick")
        assert needs.returncode == EXIT_REFUSED
        assert "it needs 4 x A40" in needs.stdout.splitlines()[-1]
    assert openrs("demo", "exp3").returncode == EXIT_REFUSED
    code = "import sys, openrs.doctor.doctor; sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

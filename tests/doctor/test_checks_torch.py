"""What the doctor makes of torch's, the GPUs' and vLLM's answers: recorded ones and stand-ins."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from recorded_machine import GPU_WORK, TORCH, VLLM, Recorded, answer

from openrs.doctor import checks_torch
from openrs.doctor import facts as facts_program
from openrs.doctor.probe import CommandResult


@pytest.mark.parametrize(
    ("said", "gpus", "state", "found"),
    [
        (CommandResult(0, TORCH), 4, "ok", "CUDA 13.0, NCCL 2.29.7, a product right on each of 4 GPUs"),
        (
            CommandResult(0, 'openrs:{"version": "2.13.0+cpu", "cuda": null, "gpus": 0}'),
            4,
            "fail",
            "though nvidia-smi sees 4",
        ),
        (CommandResult(0, 'openrs:{"version": "2.13.0+cpu", "cuda": null, "gpus": 0}'), 0, "ok", "no CUDA"),
        (CommandResult(0, TORCH.replace("true", "false")), 4, "fail", "no bf16"),
        (CommandResult(1, "Traceback\nModuleNotFoundError: No module named 'torch'\n"), 0, "warn", "not installed"),
        (CommandResult(-11, ""), 0, "fail", ""),
        (CommandResult(1, "x\nRuntimeError: CUDA error: out of memory\n"), 4, "fail", "CUDA error: out of memory"),
        (CommandResult(None, "", "python gave no answer in 120 s"), 4, "unknown", "gave no answer"),
    ],
)
def test_torch_in_a_child(said: CommandResult, gpus: int, state: str, found: str) -> None:
    line = checks_torch.torch_line(Recorded(tools={sys.executable: said}), gpus)
    assert line.state == state
    assert found in line.found


def changed_work(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(json.dumps(GPU_WORK))
    change(facts)
    return facts


@pytest.mark.parametrize(
    ("change", "name", "state", "found"),
    [
        (lambda f: None, None, "ok", ""),
        (lambda f: f["gpus"][2].update(tflops=40.0), "bf16 product", "warn", "at least 27% of the data sheet's 149.7"),
        (lambda f: f["gpus"][2].update(tflops=80.0), "bf16 product", "warn", "105, 105, 80, 105"),  # not alike
        (lambda f: [g.update(name="NVIDIA GB10") for g in f["gpus"]], "bf16 product", "info", "not in the planner's"),
        (lambda f: f["gpus"][1].update(flash={"allowed": False, "why": "sm_75"}), "flash attention", "fail", "sm_75"),
        (lambda f: f["gpus"][1].update(flash={"allowed": True, "finite": False}), "flash attention", "fail", "NaN"),
        (lambda f: f.update(driver_cuda=[12, 4]), "CUDA", "fail", "speaks CUDA 12.4, torch is built for 13.0"),
        (lambda f: f.update(driver_cuda=[13, 2]), "CUDA", "ok", "13.2"),
        (lambda f: f.update(no_peer=[]), "P2P", "ok", "all pairs"),
        (lambda f: f["libraries"].update(cudnn="/usr/lib/x86_64-linux-gnu/libcudnn.so.9"), "CUDA libraries", "warn",
         "/usr/lib/x86_64-linux-gnu/libcudnn.so.9"),
        (lambda f: f.update(libraries={}), "CUDA libraries", "unknown", "none seen"),
    ],
)  # fmt: skip
def test_what_only_the_gpus_know(change: Callable[[Any], object], name: str | None, state: str, found: str) -> None:
    lines = {line.name: line for line in checks_torch.gpu_lines(changed_work(change))}
    assert set(lines) == {"bf16 product", "flash attention", "memory to torch", "CUDA", "P2P", "CUDA libraries"}
    assert {line.state for other, line in lines.items() if other != name} <= {"ok", "info"}
    if name is not None:
        assert lines[name].state == state
        assert found in lines[name].found
        assert lines[name].fix or state in {"ok", "info"} or name == "CUDA libraries"


@pytest.mark.parametrize(
    ("result", "state", "found"),
    [
        (CommandResult(-11, "openrs starts\nCUDA error: an illegal memory access"), "fail", "illegal memory access"),
        (CommandResult(None, "", "python gave no answer in 120 s"), "unknown", "gave no answer"),
    ],
)
def test_gpus_that_die_or_hang_at_work(result: CommandResult, state: str, found: str) -> None:
    work_of = f"{sys.executable} -P -m openrs.doctor.facts gpus"
    torch, work = checks_torch.lines(Recorded(tools={work_of: result, sys.executable: CommandResult(0, TORCH)}), 4)
    assert (torch.state, work.state) == ("ok", state)
    assert found in work.found


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (VLLM, "ok"),
        (answer({"apart": 3.0}), "fail"),
        (CommandResult(1, "RuntimeError: CUDA error: no kernel image is available for execution"), "fail"),
        (CommandResult(1, "ModuleNotFoundError: No module named 'vllm'"), "info"),
        (CommandResult(1, "ImportError: libcudart.so.13"), "unknown"),
    ],
)
def test_vllm_kernels(result: CommandResult, state: str) -> None:
    (line,) = checks_torch.vllm_line(Recorded(tools={sys.executable: result}))
    assert line.state == state


def test_the_questions_to_a_gpu_are_questions_torch_takes() -> None:
    """On this CPU flash is refused in words, never by a crash; this process's own libraries are read from its maps."""
    facts = facts_program.flash("cpu", length=16)
    assert facts.get("allowed") in {True, False}
    assert "unexpected" not in facts.get("why", "")
    assert "incompatible" not in facts.get("why", "")  # SDPAParams takes these seven
    maps = (
        "7f00-7f01 r-xp 0 08:01 5  /venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublas.so.13.1\n"
        "7f02-7f03 r-xp 0 08:01 5  /usr/lib/x86_64-linux-gnu/libcudnn.so.9\n"
        "7f04-7f05 r-xp 0 08:01 5  /usr/lib/libcudnn_graph.so.9\n7f06-7f07 rw-p 0 00:00 0\n"
    )
    assert facts_program.libraries(maps) == {
        "cublas": "/venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublas.so.13.1",
        "cudnn": "/usr/lib/x86_64-linux-gnu/libcudnn.so.9",
    }

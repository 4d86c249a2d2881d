"""Machines from recordings for the doctor's tests, and stand-ins where no GPU has answered."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrs.doctor.probe import CommandResult, Probe

RECORDED = Path(__file__).parent / "recorded"
MISSING = CommandResult(None, "", "it is not installed")
TORCH = 'openrs:{"version": "2.13.0", "cuda": "13.0", "gpus": 4, "bf16": true, "nccl": "2.29.7"}'
# Stand-ins, typed after the code: no GPU has given these answers.
GPU_WORK: dict[str, Any] = {
    "gpus": 4 * [{"name": "NVIDIA A40", "free": 45e9, "tflops": 105.0, "flash": {"allowed": True, "finite": True}}],
    "no_peer": [[0, 1]], "driver_cuda": [13, 0], "cuda": [13, 0],
    "libraries": {"cublas": "/venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.13"},
}  # fmt: skip
VLLM = CommandResult(0, 'INFO of vLLM\nopenrs:{"apart": 0.008}\n')


@dataclass(frozen=True)
class Recorded(Probe):
    """A machine from recordings: what its tools answer, and what its files hold."""

    tools: Mapping[str, CommandResult] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def run(self, *command: str) -> CommandResult:
        for begin, said in self.tools.items():
            if " ".join(command).startswith(begin):
                return said
        return MISSING

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def exists(self, path: str) -> bool:
        return path in self.files

    def names(self, path: str) -> list[str]:
        return [name.removeprefix(path + "/") for name in self.files if name.startswith(path + "/")]


def answer(facts: Mapping[str, Any]) -> CommandResult:
    return CommandResult(0, "a warning of some library\nopenrs:" + json.dumps(facts) + "\n")


def text(name: str) -> CommandResult:
    return CommandResult(0, (RECORDED / name).read_text(encoding="utf-8"))


GOOD_FILES = {
    "/proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet",
    "/proc/meminfo": "MemTotal:       263856000 kB\nMemFree: 1 kB\nMemAvailable:   250000000 kB\n",
    "/proc/mounts": "overlay / overlay rw,relatime 0 0\n",
}


def machine(xml: str = "a40x4.xml", topo: str = "topo_a40x4_roots.txt", lspci: str = "lspci_acs_off.txt",
            files: Mapping[str, str] | None = None, **tools: CommandResult) -> Recorded:  # fmt: skip
    answers = {
        "nvidia-smi topo": text(topo), "nvidia-smi -q": text(xml), "lspci": text(lspci),
        f"{sys.executable} -P -m openrs.doctor.facts vllm": VLLM,
        f"{sys.executable} -P -m openrs.doctor.facts gpus": answer(GPU_WORK),
        sys.executable: CommandResult(0, "a warning of some library\n" + TORCH + "\n"),
    }  # fmt: skip
    return Recorded(tools={**tools, **answers}, files={**GOOD_FILES, **(files or {})})

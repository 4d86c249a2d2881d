"""The NVIDIA GPUs that this process may use. No library is asked: only engines and trainers touch a GPU."""

import os
import shutil
import subprocess
from pathlib import Path


def cuda_visible_devices() -> list[str] | None:
    """The entries of CUDA_VISIBLE_DEVICES, numbers or UUIDs; empty where it hides every GPU, None where it is unset."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    return [name.strip() for name in value.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]


def visible_gpus() -> list[str]:
    """GPUs as CUDA_VISIBLE_DEVICES names them; where it is unset, the numbers of all that nvidia-smi lists."""
    chosen = cuda_visible_devices()
    if chosen is not None:
        return chosen
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")] if listed.returncode == 0 else []
    return [str(number) for number in range(len(lines))]


def has_nvidia_gpu() -> bool:
    """Whether this machine shows an NVIDIA device at all; starts no process, so it answers at once."""
    return Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists() or shutil.which("nvidia-smi") is not None

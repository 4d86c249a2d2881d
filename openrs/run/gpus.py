"""The NVIDIA GPUs that this process may use. No library is asked: only engines and trainers touch a GPU."""

import shutil
import subprocess

from openrs.config.machine import cuda_visible_devices


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

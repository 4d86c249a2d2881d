"""Whether this machine shows an NVIDIA GPU. Nothing is asked or started, so it answers at once."""

import os
import shutil
from pathlib import Path


def cuda_visible_devices() -> list[str] | None:
    """The entries of CUDA_VISIBLE_DEVICES, numbers or UUIDs; empty where it hides every GPU, None where it is unset."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    return [name.strip() for name in value.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]


def has_nvidia_gpu() -> bool:
    """Whether there is an NVIDIA device at all, hidden or not."""
    return Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists() or shutil.which("nvidia-smi") is not None

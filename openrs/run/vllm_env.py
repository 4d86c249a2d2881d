"""The environment of every process that runs vLLM or talks to it: trainers, the server, the evaluation's engines."""

import hashlib
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from openrs.run.disk_faults import existing

LOCAL = ("127.0.0.1", "localhost")
COMPILE_CACHE = "OPENRS_COMPILE_CACHE"
GPU_FACTS = Path("/proc/driver/nvidia/gpus")

USUAL = {
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # vLLM's warm-up would compile it, and where there is no nvcc it dies of that
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
}


def vllm_environment(given: Mapping[str, str]) -> dict[str, str]:
    """What to set before vLLM is imported or started. What stands in `given`, the process's environment, stays.

    NO_PROXY gets the local addresses besides its own: requests and urllib would ask HTTP_PROXY for 127.0.0.1.
    """
    usual = USUAL | _compile_caches(given)
    local = ",".join(dict.fromkeys([*_hosts(given.get("NO_PROXY")), *_hosts(given.get("no_proxy")), *LOCAL]))
    return {name: given.get(name, value) for name, value in usual.items()} | {"NO_PROXY": local, "no_proxy": local}


def _hosts(value: str | None) -> list[str]:
    return [host.strip() for host in (value or "").split(",") if host.strip()]


def _compile_caches(given: Mapping[str, str]) -> dict[str, str]:
    """Where vLLM and Triton keep what they compile: in OPENRS_COMPILE_CACHE, a folder for each image and kind of GPU.

    Nothing without that variable, nor where the folder is not ours: what is in it is executed.
    """
    root = given.get(COMPILE_CACHE)
    if not root:
        return {}
    image = given.get("OPENRS_IMAGE_DIGEST") or " ".join(_version(name) for name in ("vllm", "torch", "triton"))
    folder = Path(root) / f"{hashlib.sha256(image.encode()).hexdigest()[:12]}-{gpu_model()}"
    there = existing(folder)
    own = there not in (folder.absolute(), folder.absolute().parent) or there.stat().st_uid == os.geteuid()
    if not own or not os.access(there, os.W_OK):
        return {}
    return {"VLLM_CACHE_ROOT": str(folder / "vllm"), "TRITON_CACHE_DIR": str(folder / "triton")}


def gpu_model() -> str:
    """The first GPU's model as a file name, from the driver's own files, so that no process is started; else `gpu`."""
    for facts in sorted(GPU_FACTS.glob("*/information")):
        for line in facts.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name == "Model":
                return "-".join(word for word in value.split() if word.isascii() and "/" not in word)
    return "gpu"


def _version(name: str) -> str:
    try:
        return f"{name}-{version(name)}"
    except PackageNotFoundError:
        return f"{name}-none"

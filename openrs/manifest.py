"""manifest.json: what ran, with which code, packages, machine, data and model. No secret is ever in it."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from openrs import __version__
from openrs.recipe import Recipe, load_resolved, to_yaml
from openrs.rundir import Run, now, redact, write_json, write_text

# Variables that change what a run does. Only these are recorded: the rest of an environment may hold secrets.
ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "OPENRS_NCCL", "WORLD_SIZE", "NCCL_CUMEM_ENABLE",
    "NCCL_DEBUG", "NCCL_P2P_DISABLE", "NCCL_SOCKET_IFNAME", "PYTORCH_CUDA_ALLOC_CONF", "VLLM_ATTENTION_BACKEND",
)  # fmt: skip


def begin(recipe: Recipe, run: Run, command: Sequence[str]) -> int:
    """Open a new attempt: attempts/NN, recipe.yaml, and the manifest with everything known before training.

    Returns the attempt's number. The caller holds the run's lock and has checked that the recipe is the run's own.
    """
    folder = run.new_attempt()
    write_text(run.recipe, to_yaml(recipe))
    known = read(run)
    known |= {
        "openrs": code_version(),
        "recipe": {"title": recipe.title, "sha256": recipe.hash},
        "image": os.environ.get("OPENRS_IMAGE_DIGEST"),
        "python": sys.version.split()[0],
        "packages": packages(),
        "machine": machine(),
        "model": {"name": recipe.model.name, "revision": recipe.model.revision},
        "seeds": {"training": recipe.grpo.get("seed", 42), "evaluation": recipe.evaluation.seed},
    }
    known.setdefault("attempts", []).append(
        {
            "number": int(folder.name),
            "command": [redact(word) for word in command],
            "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            "started": now(),
        }
    )
    write_json(run.manifest, known)
    return int(folder.name)


def record(run: Run, **facts: Any) -> None:
    """Add facts that became known on the way (hashes of the data, say)."""
    write_json(run.manifest, read(run) | facts)


def end(run: Run, code: int, reason: str) -> None:
    """Close the newest attempt with its exit code and why it ended."""
    known = read(run)
    known["attempts"][-1] |= {"ended": now(), "exit_code": code, "reason": redact(reason)}
    write_json(run.manifest, known)


def read(run: Run) -> dict[str, Any]:
    if not run.manifest.is_file():
        return {}
    known: dict[str, Any] = json.loads(run.manifest.read_text(encoding="utf-8"))
    return known


def recipe_of(run: Run) -> Recipe | None:
    """The recipe that the run was made with, or None for a new run."""
    return load_resolved(run.recipe) if run.recipe.is_file() else None


def code_version() -> dict[str, Any]:
    """Version of openrs, and in a git checkout its commit and whether files differ from it."""
    folder = Path(__file__).parents[1]
    version: dict[str, Any] = {"version": __version__, "commit": os.environ.get("OPENRS_COMMIT"), "changed": None}
    if (folder / ".git").exists():
        commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
        if commit is not None:
            changed = _output("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
            version |= {"commit": commit, "changed": bool(changed)}
    return version


def packages() -> dict[str, str]:
    return dict(sorted((d.metadata["Name"], d.version) for d in distributions() if d.metadata["Name"]))


def machine() -> dict[str, Any]:
    """Processor, memory, and GPUs with their driver as nvidia-smi tells them (an empty list where there are none)."""
    query = "--query-gpu=name,memory.total,driver_version"
    gpus = _output("nvidia-smi", query, "--format=csv,noheader") if shutil.which("nvidia-smi") else None
    return {
        "system": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus.splitlines() if gpus else [],
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

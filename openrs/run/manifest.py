"""manifest.json: what ran, with which code, packages, machine, data and model. No secret is ever in it."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

from openrs import __version__
from openrs.config.load import diff_trees, load_resolved, to_yaml
from openrs.config.schema import Recipe
from openrs.errors import UserError
from openrs.outside import read_shape
from openrs.run.directory import Run
from openrs.run.files import now, write_json, write_text
from openrs.secrets import redact_tree

NAME_AND_VERSION = re.compile(r"(?m)^(Name|Version):[ \t]*(.*?)[ \t]*$")

# What is read again later; the rest is only shown.
SHAPE: dict[str, Any] = {
    "attempts": [{"started": str, "accepted?": [{"setting": str}]}],
    "openrs?": {},
    "model?": {},
    "data?": {"files?": {"*": str}},
    "machine?": {"gpus?": [str]},
}
UNKNOWN_END = "no end was recorded: killed, out of memory, or the machine went down"

# Variables that change what a run does. Only these are recorded: the rest of an environment may hold secrets.
ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "OPENRS_NCCL", "WORLD_SIZE", "NCCL_CUMEM_ENABLE",
    "NCCL_DEBUG", "NCCL_P2P_DISABLE", "NCCL_SOCKET_IFNAME", "PYTORCH_CUDA_ALLOC_CONF", "VLLM_ATTENTION_BACKEND",
)  # fmt: skip


def begin(
    recipe: Recipe,
    run: Run,
    command: Sequence[str],
    accepted: Sequence[dict[str, object]] | None = None,
    adjusted: Sequence[dict[str, object]] = (),
) -> int:
    """Open a new attempt: attempts/NN, recipe.yaml, and the manifest with everything known before training.

    Args:
        accepted: changes against the run's earlier attempts that the user accepts beforehand, those of the recipe
            listed; None when there must be none (see `establish`).
        adjusted: changes of settings that any attempt may change.

    Returns the attempt's number. The caller holds the run's lock and has checked that the recipe is the run's own.
    """
    folder = run.new_attempt()
    write_text(run.recipe, to_yaml(recipe))
    known = read(run)
    for earlier in known.get("attempts", []):
        if "ended" not in earlier:
            earlier |= {"ended": None, "exit_code": None, "reason": UNKNOWN_END}
    known |= {
        "schema": 1,  # openrs/schemas/manifest.schema.json
        "openrs": code_version(),
        "recipe": {"title": recipe.title, "sha256": recipe.hash},
        "image": os.environ.get("OPENRS_IMAGE_DIGEST"),
        "python": sys.version.split()[0],
        "packages": packages(),
        "machine": machine(),
        "model": known.get("model", {}) | {"name": recipe.model.name, "revision": recipe.model.revision},
        "seeds": {"training": recipe.grpo.get("seed", 42), "evaluation": recipe.evaluation.seed},
    }
    known.setdefault("attempts", []).append(
        {
            "number": int(folder.name),
            "command": list(command),
            "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            "recipe": recipe.hash,
            "code": known["openrs"]["commit"] or known["openrs"]["version"],
            "process": os.getpid(),
            "started": now(),
        }
        | ({} if accepted is None else {"accepted": list(accepted)})
        | ({"adjusted": list(adjusted)} if adjusted else {})
    )
    _write(run, known)
    return int(folder.name)


def record(run: Run, **facts: Any) -> None:
    """Add facts that became known on the way (hashes of the data, say)."""
    _write(run, read(run) | facts)


def record_attempt(run: Run, **facts: Any) -> None:
    known = read(run)
    known["attempts"][-1] |= facts
    _write(run, known)


def establish(run: Run, *, resumed: bool, **facts: dict[str, Any]) -> None:
    """Record what training works on (`data`, `model`), which must be unchanged when a run is `resumed`.

    Raises UserError listing every difference, unless the attempt accepts changes: then it lists them itself.
    """
    known = read(run)
    before = {name: known.get(name) for name in facts}
    differences = diff_trees(redact_tree(before), redact_tree(facts))  # as it is written
    changes = [{"setting": key, "was": was, "now": new} for key, was, new in differences]
    if resumed and changes:
        if "accepted" not in known["attempts"][-1]:
            raise would_mix(
                f"{run.path} was trained on something else so far",
                changes,
                "bring back the old files, or the version of openrs that read them so; or start a new --run",
            )
        known["attempts"][-1]["accepted"] += changes
    _write(run, known | facts)


def would_mix(what: str, changes: Sequence[dict[str, Any]], fix: str) -> UserError:
    """For a run that would be resumed with something else. changes: setting, was, now."""
    listed = "\n".join(f"    {change['setting']}: {change['was']} -> {change['now']}" for change in changes)
    return UserError(
        f"{what}:\n{listed}",
        "resuming would mix two experiments in one run",
        f"{fix}; --accept-changes resumes all the same, and records them",
    )


def accepts_changes(run: Run) -> bool:
    """Whether the newest attempt may resume with other settings and other data."""
    return any("accepted" in attempt for attempt in read(run).get("attempts", [])[-1:])


def end(run: Run, code: int, reason: str) -> None:
    record_attempt(run, ended=now(), exit_code=code, reason=reason)


def started(run: Run, *, first: bool = False) -> float:
    """When the newest attempt, or the `first` one, began, in seconds since 1970."""
    text = read(run)["attempts"][0 if first else -1]["started"]
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def has_results(run: Run) -> bool:
    """Whether anything was made in the run that depends on its recipe; before that, the recipe may still change."""
    made = (run.metrics, run.checkpoints, run.path / "eval", run.path / "base")
    return any(path.stat().st_size > 0 if path.is_file() else path.is_dir() for path in made)


def _write(run: Run, known: dict[str, Any]) -> None:
    write_json(run.manifest, redact_tree(known))


def read(run: Run) -> dict[str, Any]:
    """What the manifest says; nothing of a new run. Raises UserError when it is damaged."""
    if not run.manifest.is_file():
        return {}
    return read_shape(run.manifest, SHAPE, "copy it from a backup; without it nobody knows what this run is")


def recipe_of(run: Run) -> Recipe | None:
    """The recipe that the run was made with, or None for a new run."""
    return load_resolved(run.recipe) if run.recipe.is_file() else None


def code_version() -> dict[str, Any]:
    """Version of openrs, and its commit: of the git checkout (then also the SHA-256 of what was changed in it since),
    of the repository that pip installed it from, or as OPENRS_COMMIT says (an image has no .git)."""
    folder = Path(__file__).parents[2]
    version: dict[str, Any] = {"version": __version__, "commit": os.environ.get("OPENRS_COMMIT"), "changed": None}
    if (folder / ".git").exists():
        commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
        if commit is not None:
            changes = _output("git", "-C", str(folder), "diff", "HEAD", "--no-ext-diff", "--", "openrs")
            digest = hashlib.sha256(changes.encode()).hexdigest() if changes else None
            version |= {"commit": commit, "changed": bool(changes), "changes_sha256": digest}
    elif version["commit"] is None:
        version["commit"] = _installed_commit()
    return version


def _installed_commit() -> str | None:
    try:
        origin = json.loads(distribution("openrs").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    commit = origin.get("vcs_info", {}).get("commit_id")
    return None if commit is None else str(commit)


@cache
def packages() -> dict[str, str]:
    """Name and version of all that is installed, once a process.

    The two lines are read from each head; parsing 200 whole files took a second beside the model's load.
    """
    heads = (package.read_text("METADATA") or package.read_text("PKG-INFO") or "" for package in distributions())
    named = [dict(NAME_AND_VERSION.findall(head.partition("\n\n")[0])) for head in heads]
    return dict(sorted((data["Name"], data.get("Version", "")) for data in named if data.get("Name")))


def libraries() -> dict[str, Any]:
    """What torch was built with and found: CUDA, cuDNN, NCCL and the GPUs by its own names. Imports torch."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda else None,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if cuda else [],
    }


def machine() -> dict[str, Any]:
    """Processor, memory, and GPUs with their driver as nvidia-smi reports them (an empty list where there are none)."""
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
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    named = re.search(r"(?m)^model name.*?:(.*)", text)
    return named[1].strip() if named else platform.processor() or platform.machine()


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

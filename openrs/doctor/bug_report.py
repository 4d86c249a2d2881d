"""`openrs doctor --report`: what a bug report needs, Markdown without secrets and without the user's home."""

import os
import platform
from pathlib import Path

from openrs.doctor.checks_system import DECIDING
from openrs.outside import open_regular
from openrs.run import manifest
from openrs.run.directory import Run
from openrs.secrets import redact

SETTINGS = ("OPENRS_", "HF_HUB_", "CUDA_", "NCCL_", "OMP_", "VLLM_", "TORCH_", "PYTORCH_")
LAST_LINES, LAST_BYTES = 30, 64 * 1024


def bug_report(diagnosis: str, run: Run) -> str:
    """Version, machine and settings, what the doctor found, and the end of the run's last log where there is one."""
    version, installed = manifest.code_version(), manifest.packages()
    commit = f"commit {version['commit'] or 'unknown'}" + (", changed since" if version["changed"] else "")
    deciding = ", ".join(f"{name} {installed[name]}" for name in sorted(DECIDING & installed.keys()))
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)]
    parts = [
        f"- openrs {version['version']}, {commit}",
        f"- Python {platform.python_version()}, {platform.platform()}",
        f"- packages: {deciding or 'none that trains or evaluates'}",
        f"- settings: {' '.join(settings) or 'none'}",
        *_folded("openrs doctor", diagnosis),
    ]
    if attempts := run.attempts():
        log = attempts[-1] / "log"
        parts += _folded(f"the end of {run.path.name}/attempts/{attempts[-1].name}/log", _end_of(log, run))
    home = str(Path.home())  # / for a user without one, as in a container
    text = redact("\n".join(parts))
    return (text.replace(home, "~") if len(home) > 1 else text) + "\n"


def _end_of(log: Path, run: Run) -> str:
    """The last lines of a log of the run. Nothing is followed out of it, and nothing is written."""
    if not log.is_file() or not log.resolve().is_relative_to(run.path.resolve()):
        return "no log"
    try:
        with open_regular(log) as file:
            file.seek(-min(file.seek(0, os.SEEK_END), LAST_BYTES), os.SEEK_END)
            return "\n".join(file.read().decode("utf-8", errors="replace").splitlines()[-LAST_LINES:])
    except OSError as error:  # another user's run
        return f"it cannot be read: {error.strerror}"


def _folded(title: str, text: str) -> list[str]:
    return [
        "",
        f"<details><summary>{title}</summary>",
        "",
        "```",
        text.replace("```", "'''").strip("\n"),
        "```",
        "",
        "</details>",
    ]

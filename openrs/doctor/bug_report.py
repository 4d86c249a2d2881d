"""`openrs doctor --report`: what a bug report needs, Markdown without secrets and without the user's home."""

import os
import platform

from openrs.doctor.checks_system import DECIDING
from openrs.run import manifest
from openrs.run.confined import refuse_links_out
from openrs.run.directory import Run
from openrs.run.files import last_lines
from openrs.secrets import redact

SETTINGS = ("OPENRS_", "HF_HUB_", "CUDA_", "NCCL_", "OMP_", "VLLM_", "TORCH_", "PYTORCH_")
LAST_LINES = 30


def bug_report(diagnosis: str, run: Run) -> str:
    """Version, machine and settings, what the doctor found, and the end of the run's last log where there is one.

    Raises UserError for a link out of the run.
    """
    refuse_links_out(run.path)
    version, installed = manifest.code_version(), manifest.packages()
    commit = f"commit {version['commit'] or 'unknown'}" + (", changed since" if version["changed"] else "")
    deciding = ", ".join(f"{name} {installed[name]}" for name in sorted(DECIDING & installed.keys()))
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(SETTINGS)]
    parts = [
        f"- openrs {version['version']}, {commit}",
        f"- Python {platform.python_version()}, {platform.platform()}",
        f"- packages: {deciding or 'none that trains or evaluates'}",
        f"- settings: {' '.join(settings) or 'none'}",
        _folded("openrs doctor", diagnosis),
    ]
    if attempts := run.attempts():
        end = "\n".join(last_lines(attempts[-1] / "log", LAST_LINES)) or "no log"
        parts.append(_folded(f"the end of {run.path.name}/attempts/{attempts[-1].name}/log", end))
    home = os.path.expanduser("~")  # noqa: PTH111  (Path's raises for a user id without a home; in a container it may be /)
    text = redact("\n".join(parts)) + "\n"
    return text.replace(home, "~") if home != "/" else text


def _folded(title: str, text: str) -> str:
    inside = text.replace("```", "'''").strip("\n")
    return f"\n<details><summary>{title}</summary>\n\n```\n{inside}\n```\n\n</details>"

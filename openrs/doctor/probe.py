"""How the doctor looks at a machine: tools with a time limit, files of the kernel. Tests put recorded answers here."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from openrs.doctor.finding import State


class CommandResult(NamedTuple):
    """What a tool answered. code None: it is not there, or gave no answer in time (then `why` says so)."""

    code: int | None
    text: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """A machine as its tools and files show it. `limit` seconds for each tool."""

    limit: float = 20.0

    def run(self, *command: str) -> CommandResult:
        """Run a tool; one that hangs (nvidia-smi does, when a GPU has fallen off the bus) is killed and left behind."""
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except FileNotFoundError:
            return CommandResult(None, "", f"{command[0]} is not installed")
        except OSError as error:
            return CommandResult(None, "", f"{command[0]} cannot be run: {error.strerror}")
        try:
            output, _ = process.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired:
            return CommandResult(None, "", f"{command[0]} gave no answer in {self.limit:g} s")
        finally:  # also on Ctrl-C
            if process.poll() is None:
                end_group(process.pid)
        return CommandResult(process.returncode, output.decode("utf-8", "replace"))

    def facts(self, *words: str) -> tuple[Any, State, str]:
        """The answer of a function of facts.py, in a child process. Where there is none it is None; then follow fail,
        or unknown when the program could not be run to its end, and its last line."""
        result = self.run(sys.executable, "-P", "-m", "openrs.doctor.facts", *words)
        lines = [line for line in result.text.splitlines() if line.strip()]
        answer = next((line.removeprefix("openrs:") for line in lines if line.startswith("openrs:")), "null")
        last = lines[-1] if lines else result.why
        return json.loads(answer), "unknown" if result.code is None else "fail", last[:200]

    def read(self, path: str) -> str | None:
        """A small file as text, or None when it is not there or not readable."""
        try:
            return Path(path).read_bytes()[:1_000_000].decode("utf-8", "replace")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        return Path(path).exists()

    def names(self, path: str) -> Sequence[str]:
        """Names in a folder; none when it is not there."""
        try:
            return sorted(os.listdir(path))  # noqa: PTH208 - names, not paths
        except OSError:
            return ()


def end_group(group: int) -> None:
    """SIGKILL to a process group that we started; one that hangs in the kernel is not waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)

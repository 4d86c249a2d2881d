"""The run directory: the only state there is. Paths, the lock, the manifest, append-only JSONL, atomic writes.

manifest.json  recipe.yaml  attempts/01/log  metrics.jsonl  completions/  checkpoints/step-000050/  eval/<model>/
report.html  report.md  report.json
"""

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from openrs.errors import UserError
from openrs.run.files import now


@dataclass(frozen=True, slots=True)
class Run:
    """The places in a run directory. Making a Run touches nothing on disk."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def completions(self) -> Path:
        return self.path / "completions"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def failures(self) -> Path:
        """What a training that broke leaves for whoever looks: the batch of a NaN, the stacks of a hang."""
        return self.path / "failures"

    def evaluation(self, model: str) -> Path:
        """eval/<model>, with every character that could leave the folder replaced."""
        return self.path / "eval" / re.sub(r"[^A-Za-z0-9._@-]+", "--", model).strip(".-")

    def attempts(self) -> list[Path]:
        return sorted(path for path in (self.path / "attempts").glob("[0-9]*") if path.is_dir())

    def new_attempt(self) -> Path:
        """Make attempts/NN for this launch; a resumed run adds the next number."""
        last = int(self.attempts()[-1].name) if self.attempts() else 0
        folder = self.path / "attempts" / f"{last + 1:02d}"
        folder.mkdir(parents=True)
        return folder


def run_at(name: str) -> Run:
    """The run called `name` under runs/, or at the path `name` when it has a slash in it."""
    return Run(Path(name) if "/" in name or name in {".", ".."} else Path("runs") / name)


def existing_run(name: str) -> Run:
    run = run_at(name)
    if not run.recipe.is_file():
        raise UserError(
            f"{run.path} is no run directory (it has no recipe.yaml)",
            fix="give the name of a folder in runs/, or its path",
        )
    return run


class Lock:
    """Only one process writes into a run directory; the kernel frees the lock however that process ends."""

    def __init__(self, run: Run) -> None:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            self._file = (run.path / ".lock").open("a+")
        except OSError as error:
            raise UserError(
                f"{run.path} cannot be written: {error.strerror}",
                fix="choose another --run, or mend the folder's owner",
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self._file.close()
                raise UserError(
                    f"{run.path} cannot be locked: {error.strerror}",
                    "nothing would keep a second process out",
                    "put the run on a file system that knows locks",
                ) from None
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"{run.path} is in use by {holder}",
                "two processes would write over each other's checkpoints",
                "wait for it to end, stop it, or give another --run",
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {os.uname().nodename} since {now()}\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

"""The run directory: the only state there is. Paths, the lock, the manifest, append-only JSONL, atomic writes.

manifest.json  recipe.yaml  attempts/01/log  metrics.jsonl  completions/  checkpoints/step-000050/  eval/<model>/
report.html  report.md  report.json
"""

import fcntl
import os
import re
from pathlib import Path
from typing import Self

from openrs.errors import UserError
from openrs.run.confined import make_folder, open_appending, refuse_links_out
from openrs.run.disk_faults import explained
from openrs.run.files import now
from openrs.run.folders import DECLARATION, Kind, kind_of


class Run:
    """The places in a run directory. Making a Run touches nothing on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.manifest = path / DECLARATION[Kind.RUN]
        self.metrics = path / "metrics.jsonl"
        self.completions = path / "completions"
        self.checkpoints = path / "checkpoints"
        self.failures = path / "failures"  # what a training that broke leaves for whoever looks: the batch of a NaN

    def evaluation(self, model: str) -> Path:
        """eval/<model>, with every character that could leave the folder replaced."""
        return self.path / "eval" / re.sub(r"[^A-Za-z0-9._@-]+", "--", model).strip(".-")

    def attempts(self) -> list[Path]:
        folders = (path for path in (self.path / "attempts").glob("[0-9]*") if path.name.isdecimal())
        return sorted((path for path in folders if path.is_dir()), key=lambda path: int(path.name))

    def new_attempt(self) -> Path:
        """Make attempts/NN for this launch; a resumed run adds the next number."""
        make_folder(self.path / "attempts")
        taken = [int(path.name) for path in (self.path / "attempts").iterdir() if path.name.isdecimal()]
        folder = self.path / "attempts" / f"{max(taken, default=0) + 1:02d}"
        folder.mkdir()
        return folder


def run_at(name: str) -> Run:
    """The run called `name` under runs/, or at the path `name` when it has a slash in it.

    Raises UserError for a name that cannot be a folder's, or that libraries could not write to.
    """
    path = Path(name) if "/" in name or name in {".", ".."} else Path("runs") / name
    fix = "give a --run of letters, digits, - and _"
    if not name or not name.isprintable():
        raise UserError(f"{name!r} is not a name for a run", "it is empty, or has characters that cannot be shown", fix)
    absolute = str(path.absolute())
    try:
        absolute.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{absolute!r} is not UTF-8", "what writes weights and tables needs that", fix) from None
    longest = max(len(os.fsencode(part)) for part in Path(absolute).parts)
    if longest > LONGEST_NAME or len(os.fsencode(absolute)) > LONGEST_PATH:
        what = f"the run's path is too long: {longest} bytes in one name, {len(os.fsencode(absolute))} in all"
        raise UserError(what, f"at most {LONGEST_NAME} and {LONGEST_PATH} leave room for what is in it", fix)
    return Run(path)


def existing_run(name: str) -> Run:
    """The run called `name`, which is there. Raises UserError for a folder that does not declare to be a run."""
    run = run_at(name)
    kind = kind_of(run.path)
    if kind is not Kind.RUN or not run.recipe.is_file():
        lacking = run.manifest.name if kind is None else run.recipe.name
        reason = f"it has no {lacking}" if kind in (None, Kind.RUN) else f"it has a {DECLARATION[kind]}: a model"
        raise UserError(
            f"{run.path} is not a run directory ({reason})",
            fix="give the name of a folder in runs/, or its path",
        )
    refuse_links_out(run.path)
    return run


def refuse_no_place_for_a_run(run: Run) -> None:
    """Raises UserError when the folder that a run is to be written into declares to be something else."""
    kind = kind_of(run.path)
    if kind not in (None, Kind.RUN):
        raise UserError(f"{run.path} is no run: it has a {DECLARATION[kind]}", fix="give another --run")


LONGEST_NAME, LONGEST_PATH = 200, 3000  # bytes; Linux has 255 and 4095, and a run's own names come on top


class Lock:
    """Only one process writes into a run directory; the kernel frees the lock however that process ends.

    option: the command line's name for the folder. shared: others that share it may be there, too. Raises UserError
    when another process has it, when it cannot be had, and when the run leads out of its folder.
    """

    def __init__(self, run: Run, option: str = "--run", *, shared: bool = False) -> None:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(open_appending(run.path / ".lock"), "a+")
        except OSError as error:
            failure = explained(error, run.path, "starts or resumes")
            if failure is not None:
                raise failure from None
            raise UserError(
                f"{run.path} cannot be written: {error.strerror}",
                fix=f"choose another {option}, or change the folder's owner",
            ) from None
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
                f"wait for it to end, stop it, or give another {option}",
            ) from None
        try:
            refuse_links_out(run.path)
        except UserError:
            self._file.close()
            raise
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {os.uname().nodename} since {now()}\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

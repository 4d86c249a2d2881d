"""study.json: what a study has done so far, in one file that is there whole or not at all. Never imports torch.

A job's samples, checkpoints and scores are in its own run directory; here stand only which jobs are done, what they
took, and the looks that were made.
"""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from openrs.errors import UserError
from openrs.outside import read_shape
from openrs.run.confined import open_appending
from openrs.run.files import now, write_json
from openrs.run.folders import Kind, kind_of
from openrs.secrets import redact_tree
from openrs.study.settings import Study, refuse_faults

STATE = "study.json"
EVALUATIONS = "evaluations"  # the run that keeps the evaluations of models that are not trained here
SCHEMA = 1
SHAPE: dict[str, Any] = {
    "schema": int,
    "file": str,
    "sha256": str,
    "settings": {},
    "machine": {"gpu": str, "gpus": int, "price?": int | float},
    "accepted": [{"at": str, "changes": [str], "looked": bool}],
    "jobs": {
        "*": {
            "attempts": [{"started": int | float, "seconds?": int | float, "rate?": int | float, "folder?": str}],
            "done": bool,
            "samples?": int,
        }
    },
    "looks": {"*": [{"samples": int, "at": str, "sha256": str, "p?": {"*": int | float}, "word?": str}]},
}
TIMES = ("started", "seconds", "rate")
FREE = ("title", "gpu", "gpus", "price")  # settings that change no result


@dataclass(frozen=True, slots=True)
class State:
    """The state in a study's folder. Every change is written at once; the caller holds the folder's lock."""

    folder: Path
    tree: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / STATE

    @contextmanager
    def alone(self) -> Iterator[None]:
        """In the block nobody else changes the state, and it starts with what others have written: Pods run parts of a
        study side by side."""
        with alone(self.folder):
            if (known := read(self.folder)) is not None:
                self.tree.clear()
                self.tree.update(known.tree)
            yield

    def write(self) -> None:
        write_json(self.path, redact_tree(self.tree))

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def job(self, name: str) -> dict[str, Any]:
        """What is known of a job; nothing of one that was never started."""
        return dict(self.tree["jobs"].get(name, {"attempts": [], "done": False}))

    def samples(self, name: str) -> int:
        """Samples a problem that are there of an evaluation."""
        return int(self.job(name).get("samples", 0))

    def done(self) -> set[str]:
        return {name for name, job in self.tree["jobs"].items() if job["done"]}

    def took(self, attempt: Mapping[str, Any]) -> float:
        """Seconds of an attempt. One without an end was killed, or another part makes it just now: it lasted until its
        folder was last written to."""
        if attempt.get("seconds") is not None:
            return float(attempt["seconds"])
        place = self.folder / str(attempt.get("folder", ""))
        last = max((path.stat().st_mtime for path in _files(place)), default=0.0)
        return max(0.0, last - float(attempt["started"]))

    def settle(self, names: Iterable[str]) -> None:
        """Nobody else is at these jobs, so what has no end was killed; it is written down before their files grow."""
        if left := [one for name in names for one in self.attempts(name) if one.get("seconds") is None]:
            for attempt in left:
                attempt["seconds"] = self.took(attempt)
            self.write()

    def begin(self, name: str, **facts: Any) -> None:
        """A job starts. rate: what an hour costs on this machine; other launches and parts may be on others."""
        job = self.tree["jobs"].setdefault(name, {"attempts": [], "done": False})
        job["attempts"].append({"started": time.time(), "rate": self.rate, **facts})
        self.write()

    def end(self, name: str, *, done: bool, **facts: Any) -> None:
        attempt = self.tree["jobs"][name]["attempts"][-1]
        attempt["seconds"] = max(0.0, time.time() - attempt["started"])
        self.change(name, done=done, **facts)

    def change(self, name: str, **facts: Any) -> None:
        self.tree["jobs"][name].update(facts)
        self.write()

    def attempts(self, name: str | None = None) -> list[dict[str, Any]]:
        jobs = self.tree["jobs"]
        return [one for job in jobs if name in (None, job) for one in jobs[job]["attempts"]]

    def seconds(self, name: str | None = None) -> float:
        """Wall clock of one job, or of all, killed attempts counted as far as they are known."""
        return sum(self.took(one) for one in self.attempts(name))

    @property
    def rate(self) -> float | None:
        """Dollars an hour of the machine of this launch."""
        price = self.tree["machine"].get("price")
        return None if price is None else float(price) * self.tree["machine"]["gpus"]

    def dollars(self, name: str | None = None) -> float | None:
        """Of each attempt at the rate of its own machine; None where no rate is known."""
        total = 0.0
        for one in self.attempts(name):
            rate = self.rate if one.get("rate") is None else float(one["rate"])
            if rate is None:
                return None
            total += self.took(one) / 3600 * rate
        return None if self.rate is None and not total else total

    # --- looks --------------------------------------------------------------------------------------------------------

    def looks(self, claim: str) -> list[dict[str, Any]]:
        return list(self.tree["looks"].get(claim, []))

    def spend(self, claim: str, samples: int, digest: str) -> dict[str, Any]:
        """A look is spent before anything of it is shown, so that a crash gives none back."""
        entry: dict[str, Any] = {"samples": samples, "at": now(), "sha256": digest}
        self.tree["looks"].setdefault(claim, []).append(entry)
        self.write()
        return entry

    @property
    def looked(self) -> bool:
        """Whether a result may have been seen: a look was made, or a job is done."""
        return bool(self.tree["looks"]) or bool(self.done())

    @property
    def changed_after_looking(self) -> bool:
        return any(change["looked"] for change in self.tree["accepted"])


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is in such a block of this study."""
    with os.fdopen(open_appending(folder / ".state-lock"), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read(folder: Path) -> State | None:
    """The state in a folder, None where there is none. Raises UserError when it is damaged."""
    path = folder / STATE
    if not path.is_file():
        return None
    fix = "copy it from a backup; without it nobody knows which looks were made"
    tree = read_shape(path, SHAPE, fix)
    for name, made in tree["looks"].items():
        samples = [look["samples"] for look in made]
        if (
            samples != sorted(set(samples))
            or min(samples, default=1) < 1
            or any("word" not in one for one in made[:-1])
        ):
            raise UserError(f"{path}: looks.{name}: looks at {samples} samples were not made in this order", fix=fix)
    if tree["schema"] != SCHEMA:
        raise UserError(f"{path} has schema {tree['schema']}, not {SCHEMA}", fix="use the openrs that wrote it")
    state = State(folder, tree)
    if not all(0 <= (one.get(key) or 0) < inf for one in state.attempts() for key in TIMES):
        raise UserError(f"{path}: an attempt took a time, or has a price, that is none", fix=fix)
    return state


def existing(folder: Path) -> State:
    """The state in a folder. Raises UserError when it is damaged, and where there is none."""
    if (state := read(folder)) is None:
        raise UserError(f"{folder} is no study: it has no {STATE}", fix="openrs reproduce paper --run NAME")
    return state


def opened(folder: Path, study: Study, file: Path, machine: Mapping[str, Any], *, accept_changes: bool) -> State:
    """The folder's state for this study, a new one where there is none.

    Raises UserError when the study is another one than before and a result may have been seen, unless accepted.
    """
    state, settings = read(folder), study.model_dump(by_alias=True)
    known = {"file": str(file.absolute()), "sha256": study.hash, "settings": settings}  # the report reads it anywhere
    if state is None:
        if kind_of(folder) is Kind.RUN:
            raise UserError(
                f"{folder} is a run, and no study", "a study keeps runs in its folder", "give another name: --run NAME"
            )
        tree = {"schema": SCHEMA, **known, "created": now(), "machine": dict(machine)}
        state = State(folder, {**tree, "accepted": [], "jobs": {}, "looks": {}})
    changes = differences(state.tree["settings"], settings)
    if changes and state.looked and not accept_changes:
        raise UserError(
            f"{file} was changed after the first look:\n" + "\n".join(f"    {change}" for change in changes),
            "claims, margins and looks that are chosen after seeing results say nothing",
            f"take the settings back, give another --run, or --accept-changes: the report then says so ({state.path})",
        )
    if changes:
        state.tree["accepted"].append({"at": now(), "changes": changes, "looked": state.looked})
    state.tree.update(known, machine=dict(machine))
    state.write()
    return state


def study_of(state: State) -> Study:
    """The study as it was last run. Raises UserError when the file is damaged."""
    from pydantic import ValidationError

    try:
        study = Study.model_validate(state.tree["settings"])
    except ValidationError as error:
        fault = error.errors()[0]
        raise UserError(
            f"{state.path}: settings.{'.'.join(map(str, fault['loc']))}: {fault['msg']}", fix="copy it from a backup"
        ) from None
    refuse_faults(study, {(): str(state.path)}, "copy it from a backup")
    return study


def differences(was: Any, now_: Any, key: str = "") -> list[str]:
    """Settings that differ, a line each; those that change no result are left out."""
    if key in FREE or was == now_:
        return []
    if isinstance(was, dict) and isinstance(now_, dict):
        names = [*was, *(name for name in now_ if name not in was)]
        return [
            line
            for name in names
            for line in differences(was.get(name), now_.get(name), f"{key}.{name}" if key else str(name))
        ]
    return [f"{key}: {was} -> {now_}"]


def _files(folder: Path) -> list[Path]:
    names = ("samples.jsonl", "metrics.jsonl", "attempts/*/log", "eval/*/samples.jsonl", "eval/*/scores.json")
    return [path for name in names for path in folder.glob(name) if path.is_file()]

"""A disk that breaks in the middle of a run, at any write, fsync, rename or open: exit 1 with words, and the next
launch ends with the same bits as a run that was left alone.

The faults are injected below Python: the n-th call of the operating system that touches the run fails. Which n is found
by counting in a run that goes well, so that every kind of file meets every kind of call."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import runs

FAULTS = [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ESTALE]
LASTING = (errno.EROFS, errno.EIO)  # a disk that is so stays so; the others may pass
STEPS = ["--set", "grpo.max_steps=6", "--set", "grpo.save_steps=3"]


def _path_of(call: str, arguments: tuple[Any, ...]) -> str:
    if call in ("write", "fsync"):
        try:
            return str(Path(f"/proc/self/fd/{arguments[0]}").readlink())
        except OSError:
            return ""
    return os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else ""


def _patch(check: Callable[[str, str], None]) -> None:
    """Let `check` see every call on a file of the run before it is made; what it raises, the caller gets."""
    run = os.environ["RUN_FOLDER"]

    def patched(call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*arguments: Any, **more: Any) -> Any:
            path = _path_of(call, arguments)
            made = call != "open" or arguments[1] & os.O_CREAT
            if made and path.startswith(f"{run}/"):
                check(call, path.removeprefix(f"{run}/"))
            return real(*arguments, **more)

        return calling

    for call in ("write", "fsync", "rename", "replace", "open", "mkdir"):
        setattr(os, call, patched(call, getattr(os, call)))


def count_the_calls() -> None:
    log = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write = os.write
    _patch(lambda call, path: write(log, f"{call} {path}\n".encode()) and None)


def fail_one_call() -> None:
    number, wanted = int(os.environ["FAULT"]), os.environ["CALL"]
    state = {"broken": False, "done": False}

    def check(call: str, path: str) -> None:
        if not state["done"] and f"{call} {_kind(path)}" == wanted:
            state["broken"] = state["done"] = True
        if state["broken"]:
            state["broken"] = number in LASTING
            raise OSError(number, os.strerror(number), path)

    _patch(check)


def _kind(path: str) -> str:
    """A path without the numbers in it."""
    return re.sub(r"\d+", "N", path)


COMMON = [
    "open .lock", "fsync .recipe.yaml.N.part", "replace .manifest.json.N.part", "mkdir attempts", "open attempts/N/log",
    "write metrics.jsonl", "fsync metrics.jsonl", "replace completions/.step-N.parquet.N.part",
    "fsync checkpoints/.staging/checkpoint-N/model.safetensors", "fsync checkpoints/.staging/checkpoint-N/optimizer.pt",
    "replace checkpoints/.staging/checkpoint-N/.checkpoint.json.N.part", "rename checkpoints/.staging/checkpoint-N",
    "fsync checkpoints", "rename base.part", "open base.part/.toy.json.N.part", "fsync base.part",
    "mkdir checkpoints/.staging/checkpoint-N",
]  # fmt: skip
CASES = [(call, FAULTS[index % len(FAULTS)]) for index, call in enumerate(COMMON)]
# In an ordinary test run: a line, completions, weights, the manifest, the rename, the folder. The others: soak.
CHOSEN = {6, 7, 8, 10, 11, 12}


@pytest.fixture(scope="module")
def undisturbed_short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short")
    run, calls = folder / "run", folder / "calls"
    command = ["train", runs.recipe_in(folder), "--run", run, *STEPS]
    code, said = runs.openrs(command, count_the_calls, RUN_FOLDER=str(run), CALLS=str(calls))
    assert code == 0, said
    return run


def test_the_calls_that_are_broken_are_made(undisturbed_short: Path) -> None:
    """And none of the run's own files is left out of the list."""
    lines = (undisturbed_short.parent / "calls").read_text().splitlines()
    made = {f"{call} {_kind(path)}" for call, path in (line.split(" ", 1) for line in lines)}
    assert set(COMMON) <= made, sorted(set(COMMON) - made)


@pytest.mark.parametrize(
    ("call", "number"),
    [
        pytest.param(
            call, number, marks=() if index in CHOSEN else pytest.mark.soak, id=f"{errno.errorcode[number]}-{call}"
        )
        for index, (call, number) in enumerate(CASES)
    ],
)
def test_it_ends_in_words_and_resumes_to_the_same_bits(
    call: str, number: int, undisturbed_short: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = ["train", runs.recipe_in(tmp_path), "--run", run, *STEPS]
    code, said = runs.openrs(command, fail_one_call, RUN_FOLDER=str(run), CALL=call, FAULT=str(number))
    assert code == 1, said
    assert "Traceback" not in said
    assert "fix: " in said
    assert "give the same command again" in said
    words = {errno.ENOSPC: "did not take|is full", errno.EDQUOT: "quota", errno.EROFS: "read-only", errno.EIO: "fails"}
    assert re.search(words.get(number, "stale"), said), said
    code, said = runs.openrs(command)
    assert code == 0, said
    assert runs.everything(run) == runs.everything(undisturbed_short)

"""A disk that breaks in the middle of a run, at any call that changes its folder: exit 1 with words, what was complete
is kept, and the next launch ends with the same bits as a run that was left alone.

broken_calls.c makes the n-th call of the operating system that touches the run fail, whichever library makes it. How
many there are, and which, is found by counting in a run that goes well.
"""

import ctypes
import errno
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import runs

from openrs.run import checkpoints

pytestmark = pytest.mark.slow

FAULTS = [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ESTALE]
LASTING = (errno.EROFS, errno.EIO)  # a disk that is so stays so; the others may pass
STEPS = ["--set", "grpo.max_steps=2", "--set", "grpo.save_steps=1", "--set", "training.keep_last=1"]
# Pairs of a call and a fault that the soak test takes: 293 are every call once, 1,465 all of them.
PAIRS = int(os.environ.get("OPENRS_FAULTS", "8"))
WORDS = {
    errno.ENOSPC: "did not take|is full", errno.EDQUOT: "quota", errno.EROFS: "read-only", errno.EIO: "fails",
    errno.ESTALE: "stale",
}  # fmt: skip


def counted() -> None:
    """In the fork that runs openrs: every call on the run's folder is listed, and one of them fails."""
    log = os.open(os.environ["CALLS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number, fault = int(os.environ["NUMBER"]), int(os.environ["FAULT"])
    folder = os.fsencode(os.environ["FOLDER"])
    ctypes.CDLL(None).break_call(folder, ctypes.c_long(number), fault, fault in LASTING, log)


def launched(command: list[Any], folder: Path, number: int = 0, fault: int = 0) -> tuple[int, str, list[str]]:
    """Exit code, what was said, and the calls that were made up to the one that failed."""
    calls = folder.parent / "calls"
    calls.unlink(missing_ok=True)
    code, said = runs.openrs(
        command, counted, CALLS=str(calls), FOLDER=str(folder), NUMBER=str(number), FAULT=str(fault)
    )
    lines = calls.read_text().splitlines()
    return code, said, lines[:number] if number else lines


def kind(call: str) -> str:
    """A call without the numbers and random letters in its path."""
    return re.sub(r"\d+", "N", re.sub(r"\.tmp\w+", ".tmpN", call))


def train(folder: Path) -> list[Any]:
    return ["train", runs.recipe_in(folder), "--run", folder / "run", *STEPS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that was left alone, and its calls."""
    if runs.broken_calls() is None:
        pytest.skip("nothing here compiles broken_calls.c: no Linux, or no cc, gcc or clang")
    folder = tmp_path_factory.mktemp("whole")
    code, said, calls = launched(train(folder), folder / "run")
    assert code == 0, said
    return folder / "run", calls


def check(number: int, fault: int, whole: Path, folder: Path) -> str:
    """Break one call of a run; what that did against what must hold, or nothing."""
    run = folder / "run"
    code, said, calls = launched(train(folder), run, number, fault)
    at = f"{errno.errorcode[fault]} at call {number}"
    if len(calls) < number:
        return f"{at}: there is no such call" if code else ""
    at, words = f"{at}, {kind(calls[-1])}", said.replace(str(folder), "")
    if code not in (0, 1) or "Traceback" in said:
        return f"{at}: exit {code}: {words}"
    if code == 1 and not (
        "fix: " in said and "give the same command again" in said and re.search(f"{WORDS[fault]}|did not take", said)
    ):
        return f"{at}: exit 1: {words}"
    made = re.findall(r"rename checkpoints/.staging/checkpoint-(\d+)$", "\n".join(calls[:-1]), re.MULTILINE)
    there = [checkpoints.step_of(place) for place in checkpoints.list_complete(run / "checkpoints")]
    if made and (not there or there[-1] < int(made[-1])):
        return f"{at}: step {made[-1]} was complete, and now there are {there}"
    before = code
    if code:
        code, said, _ = launched(train(folder), run)
    if code or runs.everything(run) != runs.everything(whole):
        return f"{at}: exit {before}, then {code} and other bits\n{said}"
    return ""


# A line, completions, the optimizer (torch), weights (safetensors), the rename, the manifest: a kind of file each.
SHORT = {
    "write metrics.jsonl": errno.ENOSPC,
    "write completions/.step-N.parquet.N.part": errno.EDQUOT,
    "writev checkpoints/.staging/checkpoint-N/optimizer.pt": errno.EROFS,
    "write checkpoints/.staging/checkpoint-N/.tmpN": errno.ENOSPC,
    "rename checkpoints/.staging/checkpoint-N": errno.EIO,
    "rename .manifest.json.N.part": errno.ESTALE,
}


@pytest.mark.parametrize(("call", "fault"), SHORT.items())
def test_it_ends_in_words_and_resumes_to_the_same_bits(
    call: str, fault: int, whole: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """In the second step, after a checkpoint is complete; the manifest in the middle of the run."""
    kinds = [kind(line) for line in whole[1]]
    number = len(kinds) - kinds[::-1].index(call) if "manifest" not in call else kinds.index("open metrics.jsonl")
    assert not (fault_found := check(number, fault, whole[0], tmp_path)), fault_found


def check_report(number: int, fault: int, whole: Path, folder: Path) -> str:
    """The same for the report of a run that is done: what stands there is whole, and the next call writes all of it."""
    run = shutil.copytree(whole, folder / "run")
    code, said, calls = launched(["report", f"{run}/"], run, number, fault)
    at = f"{errno.errorcode[fault]} at call {number} of a report, {kind(calls[-1])}"
    words = re.search(f"{WORDS[fault]}|did not take", said) and "fix: " in said
    if code not in (0, 1) or "Traceback" in said or (code == 1 and not words):
        return f"{at}: exit {code}: {said}"
    ends = {"report.html": "</html>\n", "report.json": "}\n", "report.md": "\n"}
    torn = [name for name, end in ends.items() if (run / name).exists() and not (run / name).read_text().endswith(end)]
    code, said, _ = launched(["report", f"{run}/"], run)
    missing = [name for name in ends if not (run / name).is_file()]
    return f"{at}: torn {torn}, then exit {code}, missing {missing}\n{said}" if torn or code or missing else ""


@pytest.mark.soak
def test_every_call_of_a_report(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    run = shutil.copytree(whole[0], tmp_path / "run")
    code, said, calls = launched(["report", f"{run}/"], run)
    assert code == 0, said
    taken, found = pairs(len(calls))[:PAIRS], []
    for number, fault in taken:
        if bad := check_report(number, fault, whole[0], tmp_path / f"{number}-{fault}"):
            found.append(bad)
        print(f"report, {len(calls)} calls: {number} {fault} {bad}", flush=True)
    assert not found, "\n".join(found)


def pairs(calls: int) -> list[tuple[int, int]]:
    """Every call with every fault, mixed: each call is there once before one comes again with another fault."""
    numbers = list(range(1, calls + 1))
    random.Random(0).shuffle(numbers)
    return [(number, FAULTS[(number + turn) % len(FAULTS)]) for turn in range(len(FAULTS)) for number in numbers]


@pytest.mark.soak
@pytest.mark.limits(processor=300 + 10 * PAIRS)
def test_every_call_in_turn(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    taken, found = pairs(len(whole[1]))[:PAIRS], []
    for tried, (number, fault) in enumerate(taken, 1):
        folder = tmp_path / f"{number}-{fault}"
        folder.mkdir()
        if bad := check(number, fault, whole[0], folder):
            found.append(bad)
        print(f"{tried} of {len(taken)}, {len(found)} wrong {bad}", flush=True)  # pytest -s shows it at once
        shutil.rmtree(folder)
    assert not found, f"{len(found)} of {len(taken)}\n" + "\n".join(found)

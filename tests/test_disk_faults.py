"""What a disk that fails means: each fault has a message of its own with a fix, whichever library met it."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrs.cli.main import main
from openrs.errors import ExplainedError, RunFailure
from openrs.run.disk_faults import FAULTS, explained, fault_behind, faults_explained, written_to

OTHERS = [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EEXIST, errno.EPIPE, errno.ECONNRESET, errno.ENOTDIR]


def raised_from(cause: BaseException) -> BaseException:
    """The exception that a library raises over another."""
    error = RuntimeError("saving failed")
    error.__cause__ = cause
    return error


MAKERS: list[Callable[[int], BaseException]] = [
    lambda number: OSError(number, os.strerror(number), "a file"),
    lambda number: RuntimeError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"),
    lambda number: RuntimeError(f"open file failed with strerror: {os.strerror(number)}"),
    lambda number: raised_from(OSError(number, os.strerror(number))),
    lambda number: raised_from(raised_from(Exception(f"(os error {number})"))),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("number", [*FAULTS, *OTHERS], ids=lambda number: errno.errorcode[number])
def test_a_fault_is_seen_in_whatever_form_it_comes(make: Callable[[int], BaseException], number: int) -> None:
    assert fault_behind(make(number)) == (number if number in FAULTS else None)


@pytest.mark.parametrize("number", FAULTS, ids=lambda number: errno.errorcode[number])
def test_each_fault_has_words_and_a_fix_of_its_own(number: int, tmp_path: Path) -> None:
    failure = explained(OSError(number, "x", str(tmp_path / "metrics.jsonl")), tmp_path, "resumes from step 5")
    assert failure is not None
    assert failure.exit_code == 1
    words = {
        errno.ENOSPC: "is full", errno.EDQUOT: "quota", errno.EROFS: "is read-only", errno.EIO: "input/output error",
        errno.ESTALE: "stale file handle",
    }  # fmt: skip
    assert [n for n, text in words.items() if text in failure.what] == [number]
    assert str(tmp_path / "metrics.jsonl") in failure.what
    assert "give the same command again: it resumes from step 5" in failure.fix
    assert failure.why


def test_it_is_not_called_full_when_there_is_room_for_what_was_needed(tmp_path: Path) -> None:
    """And torch, which does not say why it could not write, is not believed to have found a full disk."""
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    for error in (
        OSError(errno.ENOSPC, "x"),
        RuntimeError("[enforce fail] file write failed"),
        RuntimeError("basic_ios::clear: iostream error"),
    ):
        failure = explained(error, tmp_path, "resumes", needed=3_000_000)
        assert failure is not None
        assert "did not take what was written" in failure.what
        assert "about 2.9 MiB are needed" in failure.why
        assert "a quota, or a disk that fails" in failure.why
        assert "is full" not in str(failure)
        failure = explained(error, tmp_path, "resumes", needed=2 * free)
        assert failure is not None
        assert "is full" in failure.what


def test_what_is_explained_already_stays_as_it_is(tmp_path: Path) -> None:
    inner = RunFailure("the server is gone", fix="start it")
    inner.__cause__ = OSError(errno.EIO, "x")
    with pytest.raises(RunFailure, match="the server is gone"), faults_explained(tmp_path, "resumes"):
        raise inner


@pytest.mark.parametrize("number", [*FAULTS, *OTHERS], ids=lambda number: errno.errorcode[number])
def test_where_a_page_is_asked_for_a_broken_disk_is_no_wrong_name(number: int, tmp_path: Path) -> None:
    with pytest.raises(ExplainedError) as ended, written_to(tmp_path, "--out"):
        raise OSError(number, os.strerror(number))
    assert ended.value.exit_code == (1 if number in FAULTS else 2)
    assert "another" in ended.value.fix
    assert "--out" in ended.value.fix


# --- for real, as far as a kernel can be made to do it ----------------------------------------------------------------


def mounted(place: Path, options: str) -> None:
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk wants root, and a kernel that lets it")


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    """A disk with a lot of room, for 4 files."""
    mounted(tmp_path / "disk", "size=64m,nr_inodes=5")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    mounted(tmp_path / "disk", "size=1m,ro")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


def test_no_inodes_are_not_a_full_disk(few_inodes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "--run", str(few_inodes / "run")]) == 1
    said = capsys.readouterr().err
    assert f"the disk of {few_inodes / 'run'}" in said
    assert "takes no more files" in said
    assert "its inodes are used up (df -i); 64.0 MiB are free" in said
    assert "fix: remove files there, however small, and give the same command again" in said


@pytest.mark.parametrize(
    "verb",
    [
        lambda disk: ["train", "demo", "--run", str(disk / "run")],
        lambda disk: ["reproduce", "demo", "--run", str(disk / "run")],
    ],
)  # fmt: skip
def test_a_disk_that_is_read_only(verb: Any, read_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(verb(read_only)) == 1
    said = capsys.readouterr().err
    assert "is read-only" in said
    assert "fix: make it writable, and give the same command again" in said
    assert "Traceback" not in said


def test_a_library_that_does_not_say_why_is_explained_by_the_disk(read_only: Path) -> None:
    failure = explained(RuntimeError("basic_ios::clear: iostream error"), read_only / "run", "resumes")
    assert failure is not None
    assert "is read-only" in failure.what


@pytest.mark.slow
def test_a_report_on_a_disk_that_is_read_only(read_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--out", str(read_only)]) == 1
    said = capsys.readouterr().err
    assert "is read-only" in said
    assert "another --out: elsewhere" in said

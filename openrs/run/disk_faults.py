"""What a disk that fails means for a run: one message a fault, each with a fix. All of them end a command with exit
code 1: once the disk is sound again, the same command resumes."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openrs.errors import ExplainedError, RunFailure, UserError
from openrs.run.units import format_bytes

FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
UNSAID = 0  # a library says that it could not write, and not why
# torch's zip writer and C++'s stream below it, which keep the reason to themselves.
_FAILED_WRITES = ("file write failed", "unexpected pos", "iostream error")


def fault_behind(error: BaseException) -> int | None:
    """The errno of the disk's fault behind an exception, its own or that of one that it came from: also where a library
    (safetensors, tokenizers, torch) has made words of it. UNSAID for a write that failed for no said reason; None for
    anything else."""
    seen: BaseException | None = error
    found = None
    while seen is not None:
        if isinstance(seen, ExplainedError):
            return None  # it is explained already
        if isinstance(seen, OSError) and seen.errno is not None:
            if seen.errno in FAULTS:
                return seen.errno
        else:
            words = str(seen)
            rust = re.search(r"\(os error (\d+)\)", words)
            if rust and int(rust[1]) in FAULTS:
                return int(rust[1])
            for number in FAULTS:
                if os.strerror(number) in words:
                    return number
            if any(failed in words for failed in _FAILED_WRITES):
                found = UNSAID
        seen = seen.__cause__ or seen.__context__
    return found


def explained(error: BaseException, folder: Path, then: str, *, needed: int = 0, held: int = 0) -> RunFailure | None:
    """The message for a fault of the disk that `folder` is on; None for an exception that is none.

    Args:
        then: what the same command does with what is there, as in "resumes from what is complete".
        needed: bytes that were to be written, where that is known.
        held: bytes of them that are written, and will be given back.
    """
    number = fault_behind(error)
    if number is None:
        return None
    number = number or _reason_now(folder)
    name = getattr(error, "filename", None)
    at = f": {name}" if name else ""
    again = f"give the same command again: it {then}"
    match number:
        case errno.EROFS:
            what = f"the disk of {folder} is read-only{at}"
            why = "it is mounted so, or the kernel has closed it after an error (dmesg says which)"
            fix = f"make it writable, and {again}"
        case errno.ESTALE:
            what = f"the network disk of {folder} has lost its server's files (stale file handle){at}"
            why = "its server was started anew, or the folder was replaced there"
            fix = f"mount it again, and {again}"
        case errno.EIO:
            what = f"the disk of {folder} fails (input/output error){at}"
            why = "the device, or the server of a network disk, does not read or write any more (dmesg says more)"
            fix = f"repair it, and {again}; or copy the run to a sound disk and name it there with --run"
        case _:
            what, why, fix = _no_room(number, folder, needed, held)
            what, fix = f"{what}{at}", f"{fix}, and {again}"
    return RunFailure(what, why, fix)


def _reason_now(folder: Path) -> int:
    """What a small file on that disk meets now; UNSAID when it can be written."""
    try:
        with tempfile.TemporaryFile(dir=existing(folder)) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno if error.errno in FAULTS else UNSAID
    return UNSAID


def existing(path: Path) -> Path:
    """The path itself, absolute, or its nearest parent that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _no_room(number: int, folder: Path, needed: int, held: int) -> tuple[str, str, str]:
    """Which kind of room there is none of: bytes, files (inodes), a quota; or none of them, as far as the disk says."""
    facts = os.statvfs(existing(folder))
    free = facts.f_bavail * facts.f_frsize + held
    if facts.f_files and not facts.f_favail:
        why = f"its inodes are used up (df -i); {format_bytes(free)} are free"
        return f"the disk of {folder} takes no more files", why, "remove files there, however small"
    if number == errno.EDQUOT:
        fix = "remove files of yours there or have the quota raised"
        return f"the quota on the disk of {folder} is used up", f"{format_bytes(free)} are free there for others", fix
    wanted = f"about {format_bytes(needed)} are needed, " if needed else ""
    if needed and free > needed:
        why = f"{wanted}{format_bytes(free)} are free: a quota, or a disk that fails (dmesg)"
        return f"the disk of {folder} did not take what was written", why, "make it take files of that size"
    return f"the disk of {folder} is full", f"{wanted}{format_bytes(free)} are free", "make room"


@contextmanager
def faults_explained(folder: Path, then: str) -> Iterator[None]:
    """Raises the RunFailure of `explained` for a disk that fails in the block."""
    try:
        yield
    except Exception as error:
        failure = explained(error, folder, then)
        if failure is None:
            raise
        raise failure from None


@contextmanager
def written_to(place: Path, option: str) -> Iterator[None]:
    """Around writing what a command was asked for to a place that `option` names. Raises RunFailure for a disk that
    fails in the block, and UserError for a place where nothing can be written."""
    try:
        yield
    except OSError as error:
        refused = UserError(f"{place} cannot be written: {error.strerror}", fix=f"give another place with {option}")
        raise explained(error, place, f"writes it anew (another {option}: elsewhere)") or refused from None

"""Bring a run's report, results and records from the cluster's volume to here: resumable, every file checked.

What comes over the wire is not trusted: names are checked before they become paths, sizes are as announced.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from openrs.cluster import api
from openrs.cluster.api import Cluster, ServerUnavailable
from openrs.cluster.collect_pod import reader
from openrs.cluster.control import Say
from openrs.cluster.jobs import DATA, job_name
from openrs.cluster.pods_exec import SILENCE, output
from openrs.cluster.reading import read_job
from openrs.errors import RunFailure, UserError
from openrs.planner.render import amount
from openrs.run.confined import refuse_links_out
from openrs.run.files import now, sha256, write_json
from openrs.run.terminal import clean

Kind = Literal["report", "all", "checkpoints"]

BOOT = "import sys; exec(sys.stdin.buffer.read(int(sys.argv[1])))"
PROGRAM = Path(__file__).with_name("remote.py")
ROOT = f"{DATA}/runs"
MARK = ".collected.json"  # in a folder that collect made: it may write there again
PIECE = 8 << 20  # bytes asked for at once
MANY = 100  # files asked for at once
TRIES = 8  # broken connections, one after another, before it gives up
HASHING = 3600.0  # seconds without a byte while files are hashed: a checkpoint of 26 GiB on a slow disk


@dataclass(frozen=True, slots=True)
class Source:
    """A container that sees the claim, and what is copied of it."""

    cluster: Cluster
    pod: str
    container: str
    kind: Kind

    def output(self, *words: str, silence: float = SILENCE) -> Iterator[bytes]:
        """What remote.py prints for these words. Raises as pods_exec.output."""
        program = f"{PROGRAM.read_text(encoding='utf-8')}\nmain({list(words)!r})\n".encode()
        # By stdin: an address has no room for it. -I: nothing in the volume is imported; -S: a quick start.
        command = ["python3", "-I", "-S", "-c", BOOT, str(len(program))]
        return output(self.cluster, self.pod, self.container, command, program, silence=silence)


@dataclass(frozen=True, slots=True)
class File:
    """A file in the volume: its path below runs/, its size, and the SHA-256 of so many bytes."""

    path: str
    size: int
    sha256: str


def collect(
    cluster: Cluster, run: str, say: Say, *, kind: Kind = "report", to: Path = Path("runs"), image: str | None = None
) -> list[Path]:
    """Copy what `kind` says of every run in the claim of `run` into `to`/<name>/. Returns these folders.

    kind: report (report, scores, metrics, manifest, logs), all (and completions, samples), checkpoints (everything).
    Given again it copies what is missing or has changed. Raises UserError, RunFailure.
    """
    job = read_job(cluster, job_name(run))
    with reader(cluster, run, job, image, say) as (pod, container):
        source = Source(cluster, pod, container, kind)
        found = listed(source)
        if not found:
            raise UserError(
                f"the claim of {run} holds no run yet", fix=f"openrs cluster status {run} says what it does"
            )
        folders = sorted({to / PurePosixPath(file.path).parts[0] for file in found})
        for folder in folders:
            claim_folder(folder, cluster, run)
        missing = [file for file in found if not is_here(to / file.path, file)]
        size = sum(file.size for file in missing)
        say(f"{len(found)} files, {len(found) - len(missing)} of them here already; {amount(size)} to copy")
        copy(source, missing, to, say)
    say(f"all of it is here, every file equal to its SHA-256: {', '.join(map(str, folders))}")
    return folders


def listed(source: Source, names: Sequence[str] = ()) -> list[File]:
    """The files there are, with their hashes. Raises UserError for names that would lead out of the folder."""
    text = b"".join(again(lambda: list(source.output("list", ROOT, source.kind, *names, silence=HASHING))))
    found = []
    for line in text.decode("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
            file = File(str(row["path"]), int(row["size"]), str(row["sha256"]))
        except (ValueError, KeyError, TypeError):
            raise RunFailure(f"the Pod's list of files cannot be read: {clean(line)[:200]}") from None
        found.append(file)
        refuse_odd(file)
    return found


def refuse_odd(file: File) -> None:
    parts = PurePosixPath(file.path).parts
    safe = len(parts) > 1 and ".." not in parts and not file.path.startswith("/") and file.path.isprintable()
    if not safe or "\\" in file.path or file.size < 0 or any(len(part) > 200 for part in parts):
        raise UserError(f"the volume names a file that may not be written here: {clean(file.path)!r}")


def claim_folder(folder: Path, cluster: Cluster, run: str) -> None:
    """Make the folder ours to write in, or refuse one that something else made: a run of this machine, say."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UserError(
            f"{folder} is there, and was not collected from a cluster",
            "its files would be overwritten",
            "give another folder with --to",
        )
    refuse_links_out(folder)
    write_json(folder / MARK, {"namespace": cluster.namespace, "job": job_name(run), "collected": now()})


def is_here(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def copy(source: Source, files: Sequence[File], to: Path, say: Say) -> None:
    """Copy files, many small ones at once and large ones in pieces, on from what an earlier try left of them.

    One that changed in the meantime is tried again as it is now (of a journal that only grew, the announced beginning
    is taken); one that is gone, a checkpoint that retention took away, is left out.
    """
    waiting, changed, broken, done = list(files), dict.fromkeys((file.path for file in files), 0), 0, 0
    while waiting:
        asked = pieces(waiting, to)
        try:
            pull(source, asked)
            broken, whole = 0, True
        except ServerUnavailable as away:
            moved = any(size_of(one.part) > one.offset for one in asked)
            broken, whole = (1 if moved else broken + 1), False
            if broken > TRIES:
                raise _gave_up(away) from None
            time.sleep(min(api.FIRST * 2.0**broken, api.LONGEST))
        for one in asked:
            file, here = one.file, size_of(one.part)
            if is_here(one.part, file):
                one.part.replace(to / file.path)
                waiting.remove(file)
                done += 1
                say(f"{done}/{len(files)}  {file.path} ({amount(file.size)})")
            elif here == file.size or (whole and here - one.offset < one.length):
                one.part.unlink(missing_ok=True)
                changed[file.path] += 1
                if changed[file.path] > 2:
                    raise RunFailure(f"{file.path} keeps changing", fix="give the command again in a while")
                say(f"{file.path} changed while it was copied; once more")
                same = [now for now in listed(source, [PurePosixPath(file.path).parts[0]]) if now.path == file.path]
                waiting[waiting.index(file) : waiting.index(file) + 1] = same


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file to ask for, and the file beside its place that gets them."""

    file: File
    part: Path
    offset: int
    length: int


def part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def pieces(files: Sequence[File], to: Path) -> list[Piece]:
    """What to ask for next: of the first files so much that it is PIECE bytes together, and at most MANY files."""
    found: list[Piece] = []
    room = PIECE
    for file in files[:MANY]:
        part = part_of(to / file.path)
        part.parent.mkdir(parents=True, exist_ok=True)
        if size_of(part) > file.size:
            part.unlink()
        offset = size_of(part)
        length = min(room, file.size - offset)
        found.append(Piece(file, part, offset, length))
        room -= length
        if room <= 0:
            break
    return found


def pull(source: Source, asked: Sequence[Piece]) -> None:
    """Append what comes to the parts. Raises ServerUnavailable when the connection breaks: what came so far is kept."""
    words = [word for one in asked for word in (one.file.path, str(one.offset), str(one.length))]
    rest, left, coming = b"", 0, iter(asked)
    out: IO[bytes] | None = None
    try:
        for data in source.output("read", ROOT, *words):
            rest += data
            while left or len(rest) >= 8:
                if not left:
                    left, rest = int.from_bytes(rest[:8], "big"), rest[8:]
                    piece = next(coming, None)
                    if piece is None or left > piece.length:
                        raise RunFailure("the Pod sends more than it was asked for")
                    if out is not None:
                        out.close()
                    out = piece.part.open("ab")
                if out is not None:
                    out.write(rest[:left])
                left, rest = left - len(rest[:left]), rest[left:]
                if not rest:
                    break
    finally:
        if out is not None:
            out.close()


def again(call: Callable[[], list[bytes]]) -> list[bytes]:
    """A command that may be given twice, until its whole answer came."""
    for broken in range(TRIES + 1):
        try:
            return call()
        except ServerUnavailable as away:
            if broken == TRIES:
                raise _gave_up(away) from None
            time.sleep(min(api.FIRST * 2.0**broken, api.LONGEST))
    raise AssertionError


def _gave_up(away: ServerUnavailable) -> RunFailure:
    return RunFailure(
        f"the connection to the Pod keeps breaking ({away.why})",
        fix="give the command again: what is here stays, and half a file is gone on with",
    )

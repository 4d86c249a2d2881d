"""Copy a run's report, results and records from the cluster's volume to this machine: resumable, every file checked.

Data from the Pod are not trusted: names are checked before they become paths, sizes must be as listed.
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
from openrs.cluster.jobs import DATA, job_name
from openrs.cluster.pods_exec import SILENCE, output
from openrs.cluster.watch import Say
from openrs.errors import RunFailure, UserError
from openrs.run.confined import refuse_links_out
from openrs.run.files import now, sha256, write_json
from openrs.run.terminal import clean
from openrs.run.units import format_bytes

Kind = Literal["report", "all", "checkpoints"]

BOOT = "import sys; exec(sys.stdin.buffer.read(int(sys.argv[1])))"
PROGRAM = Path(__file__).with_name("remote.py")
ROOT = f"{DATA}/runs"
MARK = ".collected.json"  # marks a folder that collect created and may write again
PIECE = 8 << 20  # bytes requested at once
MANY = 100  # files requested at once
TRIES = 8  # consecutive broken connections before it gives up
HASHING = 3600.0  # seconds without a byte while files are hashed: a checkpoint of 26 GiB on a slow disk


@dataclass(frozen=True, slots=True)
class Source:
    """A container that mounts the claim, and what is copied from it."""

    cluster: Cluster
    pod: str
    container: str
    kind: Kind

    def output(self, *words: str, silence: float = SILENCE) -> Iterator[bytes]:
        """What remote.py prints for these words. Raises as pods_exec.output."""
        program = f"{PROGRAM.read_text(encoding='utf-8')}\nmain({list(words)!r})\n".encode()
        # Over stdin: it is too long for the URL. -I: nothing in the volume is imported; -S: starts faster.
        command = ["python3", "-I", "-S", "-c", BOOT, str(len(program))]
        return output(self.cluster, self.pod, self.container, command, program, silence=silence)


@dataclass(frozen=True, slots=True)
class File:
    """A file in the volume: its path below runs/, its size in bytes, and the SHA-256 of that many bytes."""

    path: str
    size: int
    sha256: str


def collect(
    cluster: Cluster, run: str, say: Say, *, kind: Kind = "report", to: Path = Path("runs"), image: str | None = None
) -> list[Path]:
    """Copy what `kind` says of every run in the claim of `run` into `to`/<name>/. Returns these folders.

    kind: report (report, scores, metrics, manifest, logs), all (and completions, samples), checkpoints (everything).
    Repeated, it copies what is missing or has changed. Raises UserError, RunFailure.
    """
    job = api.get(cluster, "Job", job_name(run))
    with reader(cluster, run, job, image, say) as (pod, container):
        source = Source(cluster, pod, container, kind)
        files = listed(source)
        if not files:
            raise UserError(
                f"the claim of {run} contains no run yet", fix=f"see what it does: openrs cluster status {run}"
            )
        folders = sorted({to / PurePosixPath(file.path).parts[0] for file in files})
        for folder in folders:
            claim_folder(folder, cluster, run)
        missing = [file for file in files if not is_here(to / file.path, file)]
        size = sum(file.size for file in missing)
        say(f"{len(files)} files, {len(files) - len(missing)} of them already here; {format_bytes(size)} to copy")
        copy(source, missing, to, say)
    say(f"complete, and every file matches its SHA-256: {', '.join(map(str, folders))}")
    return folders


def listed(source: Source, names: Sequence[str] = ()) -> list[File]:
    """The files in the volume, with their hashes. Raises UserError for names that would lead out of the folder."""
    text = b"".join(retry(lambda: list(source.output("list", ROOT, source.kind, *names, silence=HASHING))))
    files = []
    for line in text.decode("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
            file = File(str(row["path"]), int(row["size"]), str(row["sha256"]))
        except (ValueError, KeyError, TypeError):
            raise RunFailure(f"the Pod's list of files cannot be read: {clean(line)[:200]}") from None
        files.append(file)
        refuse_odd(file)
    return files


def refuse_odd(file: File) -> None:
    parts = PurePosixPath(file.path).parts
    safe = len(parts) > 1 and ".." not in parts and not file.path.startswith("/") and file.path.isprintable()
    if not safe or "\\" in file.path or file.size < 0 or any(len(part) > 200 for part in parts):
        raise UserError(f"the volume contains a file name that is not safe to write here: {clean(file.path)!r}")


def claim_folder(folder: Path, cluster: Cluster, run: str) -> None:
    """Mark the folder as collected, or refuse one that something else created, such as a run of this machine."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UserError(
            f"{folder} exists and was not collected from a cluster",
            "its files would be overwritten",
            "choose another folder with --to",
        )
    refuse_links_out(folder)
    write_json(folder / MARK, {"namespace": cluster.namespace, "job": job_name(run), "collected": now()})


def is_here(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def copy(source: Source, files: Sequence[File], to: Path, say: Say) -> None:
    """Copy files, many small ones at once and large ones in pieces, resuming partial files of an earlier attempt.

    A file that changed in the meantime is listed and copied again (of a journal that only grew, the listed beginning is
    kept); one that is gone, such as a checkpoint that retention removed, is left out.
    """
    waiting, changed, broken, done = list(files), dict.fromkeys((file.path for file in files), 0), 0, 0
    while waiting:
        batch = pieces(waiting, to)
        try:
            pull(source, batch)
            broken, whole = 0, True
        except ServerUnavailable as unavailable:
            moved = any(size_of(piece.part) > piece.offset for piece in batch)
            broken, whole = (1 if moved else broken + 1), False
            pause(broken, unavailable)
        for piece in batch:
            file, here = piece.file, size_of(piece.part)
            if is_here(piece.part, file):
                piece.part.replace(to / file.path)
                waiting.remove(file)
                done += 1
                say(f"{done}/{len(files)}  {file.path} ({format_bytes(file.size)})")
            elif here == file.size or (whole and here - piece.offset < piece.length):
                piece.part.unlink(missing_ok=True)
                changed[file.path] += 1
                if changed[file.path] > 2:
                    raise RunFailure(f"{file.path} keeps changing", fix="run the command again later")
                say(f"{file.path} changed while it was copied; copying it again")
                same = [now for now in listed(source, [PurePosixPath(file.path).parts[0]]) if now.path == file.path]
                waiting[waiting.index(file) : waiting.index(file) + 1] = same


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a file to request, and the partial file that they are appended to."""

    file: File
    part: Path
    offset: int
    length: int


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def pieces(files: Sequence[File], to: Path) -> list[Piece]:
    """What to request next: the first files, at most PIECE bytes together and at most MANY files."""
    batch: list[Piece] = []
    budget = PIECE
    for file in files[:MANY]:
        target = to / file.path
        part = target.with_name(f".{target.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        if size_of(part) > file.size:
            part.unlink()
        offset = size_of(part)
        length = min(budget, file.size - offset)
        batch.append(Piece(file, part, offset, length))
        budget -= length
        if budget <= 0:
            break
    return batch


def pull(source: Source, batch: Sequence[Piece]) -> None:
    """Append bytes to the partial files. Raises ServerUnavailable when the connection breaks; bytes so far are kept."""
    words = [word for piece in batch for word in (piece.file.path, str(piece.offset), str(piece.length))]
    rest, left, coming = b"", 0, iter(batch)
    out: IO[bytes] | None = None
    try:
        for data in source.output("read", ROOT, *words):
            rest += data
            while left or len(rest) >= 8:
                if not left:
                    left, rest = int.from_bytes(rest[:8], "big"), rest[8:]
                    current = next(coming, None)
                    if current is None or left > current.length:
                        raise RunFailure("the Pod sends more bytes than were requested")
                    if out is not None:
                        out.close()
                    out = current.part.open("ab")
                if out is not None:
                    out.write(rest[:left])
                left, rest = left - len(rest[:left]), rest[left:]
                if not rest:
                    break
    finally:
        if out is not None:
            out.close()


def retry(call: Callable[[], list[bytes]]) -> list[bytes]:
    """Repeat a command that is safe to repeat until its whole output arrived."""
    broken = 0
    while True:
        try:
            return call()
        except ServerUnavailable as unavailable:
            broken += 1
            pause(broken, unavailable)


def pause(broken: int, unavailable: ServerUnavailable) -> None:
    """Wait after so many broken connections, one after another. Raises RunFailure after more than TRIES."""
    if broken > TRIES:
        raise RunFailure(
            f"the connection to the Pod keeps breaking ({unavailable.why})",
            fix="run the command again: it resumes, also within a file",
        ) from None
    time.sleep(min(api.FIRST_PAUSE_S * 2.0**broken, api.LONGEST_PAUSE_S))

"""`openrs fetch`: everything a recipe needs from the hub, at pinned commits, whole and checked; afterwards no network.

Exit 0: all there and checked. 2: it cannot be fetched. 75: the hub stays away, or Ctrl-C; the same command resumes.
"""

import contextlib
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from openrs.errors import UserError
from openrs.hub import cache as caches
from openrs.hub.cache import File, hub_cache, offline
from openrs.hub.download import Hub, Remote, part_of
from openrs.hub.pins import Reference
from openrs.run.progress import Progress
from openrs.run.units import GIB, format_bytes

SPARE = 1 * GIB  # room on the disk that is left alone
WORKERS = 4


def listing(refs: Sequence[Reference], cache: Path | None = None) -> str:
    """`openrs fetch --list`: what a recipe needs, without network: sizes as fetched or pinned, whether it is there."""
    lines = []
    for ref in refs:
        files = caches.locked_files(ref, cache)
        wrong = caches.problems(ref, cache, hashes=False)
        size = sum(file.bytes for file in files.values()) if files else ref.bytes
        pin = "unpinned" if ref.unpinned else "the newest, then locked"
        lines.append(
            f"{ref.purpose:22s} {ref.kind:8s} {ref.repo} @ {pin if ref.revision == 'main' else ref.revision[:7]}:"
            f" {'size unknown' if size is None else format_bytes(size)}; {'; '.join(wrong[:2]) or 'fetched'}"
            f"{', gated: needs HF_TOKEN' if ref.gated else ''}"
        )
    return "\n".join([*lines, f"cache: {hub_cache(cache)}"]) + "\n"


def fetch(refs: Sequence[Reference], hub: Hub, *, workers: int = WORKERS) -> None:
    """Fetch all references, several files at once, and check every byte. Says what it does through hub.say.

    With HF_HUB_OFFLINE set it only checks. Raises UserError or Interrupted as Hub does; KeyboardInterrupt at once.
    """
    if offline():
        return _check_only(refs, hub)
    try:
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
    except ImportError:
        raise UserError("huggingface_hub is not installed", fix="pip install 'openrs[train]'") from None
    disable_progress_bars()
    with caches.only_one(hub.cache, hub.say):
        todo: list[tuple[Reference, str, list[Remote]]] = []
        for ref in refs:
            locked = None if ref.unpinned else caches.locked_commit(ref, hub.cache)
            if locked is not None and not caches.problems(ref, hub.cache):
                hub.say(f"{ref.repo} @ {locked[:7]}: there, every file equal to its SHA-256")
                continue
            commit = locked or hub.commit(ref)
            todo.append((ref, commit, hub.files(ref, commit)))
        _room(todo, hub.cache)
        for ref, commit, remotes in todo:
            size = sum(remote.bytes for remote in remotes)
            hub.say(f"{ref.repo} @ {commit[:7]}: {len(remotes)} files, {format_bytes(size)}")
        done = _all_files(todo, hub, workers)
        for ref, commit, _ in todo:
            _agrees(ref, commit, done[ref.name, commit], hub)
            caches.record(ref, commit, done[ref.name, commit], hub.cache)
            if ref.revision == "main":  # so that a load without a revision finds the same commit offline
                main = caches.repository(ref, hub.cache) / "refs" / "main"
                main.parent.mkdir(exist_ok=True)
                main.write_text(commit)
            hub.say(f"{ref.repo} @ {commit[:7]}: whole and checked")
    return None


def fetch_all(
    refs: Sequence[Reference], say: Callable[[str], None], *, workers: int = WORKERS, quick: bool = False
) -> None:
    """`openrs fetch`: everything into the user's cache, and what to do then. quick: what was checked when it came is
    there when its sizes are right, which takes no network and no second.
    """
    if not refs:
        say("nothing to fetch: model and data are made here, or lie on this disk")
        return
    if quick and not any(caches.problems(ref, hashes=False) for ref in refs):
        say(f"all of it is in {hub_cache()}, checked when it was fetched; without --quick every file is hashed again")
        return
    fetch(refs, Hub(hub_cache(), say=say), workers=max(1, workers))
    say(f"all of it is in {hub_cache()}: with HF_HUB_OFFLINE=1 nothing needs the network any more")


def _check_only(refs: Sequence[Reference], hub: Hub) -> None:
    wrong = [
        f"{ref.purpose}: {ref.repo}: {'; '.join(found)}" for ref in refs if (found := caches.problems(ref, hub.cache))
    ]
    if wrong:
        raise UserError("\n".join(wrong), "HF_HUB_OFFLINE is set, so nothing is fetched", "unset it and fetch again")
    hub.say("offline: everything is there, every file equal to its SHA-256")


def _room(todo: Sequence[tuple[Reference, str, list[Remote]]], cache: Path) -> None:
    """Refuse before the first byte when the disk cannot hold what is missing."""
    missing = 0
    for ref, _, remotes in todo:
        for remote in remotes:
            blobs = caches.repository(ref, cache) / "blobs"
            there = (blobs / (remote.sha256 or remote.git or "-")).exists()
            part = part_of(ref, remote, cache)
            missing += 0 if there else remote.bytes - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(cache).free
    if missing + SPARE > free:
        raise UserError(
            f"{format_bytes(missing)} are to be fetched, {cache} has {format_bytes(free)} free",
            f"{format_bytes(SPARE)} are left alone",
            "make room, or set HF_HOME to a larger disk",
        )


def _agrees(ref: Reference, commit: str, files: dict[str, File], hub: Hub) -> None:
    """A commit never changes: what was fetched again must equal what was recorded at first."""
    old = caches.locked_files(ref, hub.cache) if caches.locked_commit(ref, hub.cache) == commit else None
    changed = [name for name, file in files.items() if old and name in old and old[name] != file]
    if changed:
        raise UserError(
            f"{ref.kind} {ref.repo} @ {commit[:7]}: {', '.join(changed)} changed since it was first fetched",
            "a commit's files cannot change: one of the two was tampered with",
            f"compare with the hub's page; to take the new ones delete {hub.cache / caches.LOCK}",
        )


def _all_files(
    todo: Sequence[tuple[Reference, str, list[Remote]]], hub: Hub, workers: int
) -> dict[tuple[str, str], dict[str, File]]:
    """Fetch in daemon threads, the largest first: Ctrl-C and a failure leave at once, and leave what has arrived."""
    jobs: queue.SimpleQueue[tuple[Reference, str, Remote]] = queue.SimpleQueue()
    work = [(ref, commit, remote) for ref, commit, remotes in todo for remote in remotes]
    for job in sorted(work, key=lambda job: -job[2].bytes):
        jobs.put(job)
    results: queue.SimpleQueue[tuple[Reference, str, Remote, File | BaseException]] = queue.SimpleQueue()

    def worker() -> None:
        while True:
            try:
                ref, commit, remote = jobs.get_nowait()
            except queue.Empty:
                return
            try:
                results.put((ref, commit, remote, hub.fetch(ref, commit, remote)))
            except BaseException as error:  # noqa: BLE001 - raised again in the main thread
                results.put((ref, commit, remote, error))
                return

    for _ in range(min(workers, len(work))):
        threading.Thread(target=worker, daemon=True).start()
    done: dict[tuple[str, str], dict[str, File]] = {(ref.name, commit): {} for ref, commit, _ in todo}
    shown = Arriving(work, hub.cache)
    for _ in work:
        while True:
            try:
                ref, commit, remote, result = results.get(timeout=0.5)
                break
            except queue.Empty:
                shown.show()
        if isinstance(result, BaseException):
            raise result
        done[ref.name, commit][remote.name] = result
        shown.finished(remote)
    shown.progress.close()
    return done


class Arriving:
    """How much has arrived: one line that grows in a terminal, and one line each ten seconds in a log."""

    def __init__(self, work: Sequence[tuple[Reference, str, Remote]], cache: Path) -> None:
        self._parts = {remote: part_of(ref, remote, cache) for ref, _, remote in work if remote.sha256}
        self._total, self._done = sum(remote.bytes for _, _, remote in work), 0
        self.progress = Progress()
        self._begin = self._last = time.monotonic()
        self._first = self._arrived()

    def _arrived(self) -> int:
        arrived = self._done
        for part in self._parts.values():
            with contextlib.suppress(OSError):  # not begun, or whole and renamed just now
                arrived += part.stat().st_size
        return arrived

    def finished(self, remote: Remote) -> None:
        self._done += remote.bytes
        self._parts.pop(remote, None)

    def show(self) -> None:
        clock = time.monotonic()
        if clock - self._last < (0.5 if sys.stdout.isatty() else 10):
            return
        self._last, here = clock, self._arrived()
        speed = max(0.0, (here - self._first) / (clock - self._begin))
        left = f", {(self._total - here) / speed / 60:.0f} min left" if speed > 0 else ""
        self.progress.live(f"{format_bytes(here)} of {format_bytes(self._total)}, {format_bytes(speed)}/s{left}")

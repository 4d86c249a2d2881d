"""The hub, as far as fetch needs it: commits, lists of files, and files that arrive whole or go on where they stopped.

huggingface_hub does the talking and owns the cache's layout. It starts a broken download again from the first byte
(1.33), so large files are taken by us, piece after piece, into the place where it then finds them.
"""

import errno
import hashlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from openrs.errors import ExplainedError, Interrupted, UserError
from openrs.hub.cache import File, repository
from openrs.hub.pins import Reference
from openrs.run.files import sha256
from openrs.secrets import redact

T = TypeVar("T")
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds between tries; the hub's Retry-After counts where it is longer
LONGEST_WAIT = 300.0
TIMEOUT = 20.0  # seconds without an answer, or without a byte


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as the hub states it: weights come with their SHA-256, small files with their git hash."""

    name: str
    bytes: int
    sha256: str | None
    git: str | None


@dataclass(frozen=True, slots=True)
class Hub:
    """Where to fetch from and into. endpoint None: HF_ENDPOINT, or huggingface.co. The token is HF_TOKEN's."""

    cache: Path
    endpoint: str | None = None
    waits: tuple[float, ...] = WAITS
    say: Callable[[str], None] = lambda _: None

    def commit(self, ref: Reference) -> str:
        """The full commit of a reference. Raises UserError when the repository has none that begins so."""
        if ref.exact:
            return ref.revision
        api = self._api()
        if ref.revision == "main" or ref.unpinned:
            ask = lambda: api.repo_info(ref.repo, repo_type=ref.kind, revision=ref.revision, timeout=TIMEOUT)  # noqa: E731
            return str(self._patiently(ask, ref, "its newest commit").sha)
        commits = self._patiently(lambda: api.list_repo_commits(ref.repo, repo_type=ref.kind), ref, "its commits")
        found = [str(commit.commit_id) for commit in commits if str(commit.commit_id).startswith(ref.revision)]
        if len(found) != 1:
            raise UserError(
                f"{ref.kind} {ref.repo} has {len(found) or 'no'} commits that begin with {ref.revision}",
                "its history was rewritten, or the beginning is too short",
                "give the full commit in the recipe",
            )
        return found[0]

    def files(self, ref: Reference, commit: str) -> list[Remote]:
        """The files to fetch, with their sizes. Raises UserError when none of them is wanted."""
        from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

        info = self._patiently(
            lambda: self._api().repo_info(
                ref.repo, repo_type=ref.kind, revision=commit, files_metadata=True, timeout=TIMEOUT
            ),
            ref,
            "its list of files",
        )
        remotes = [
            Remote(item.rfilename, int(item.size or 0), item.lfs.sha256 if item.lfs else None, item.blob_id)
            for item in info.siblings or []
        ]
        wanted = filter_repo_objects(
            remotes, allow_patterns=list(ref.files) if ref.files else None, key=lambda remote: remote.name
        )
        chosen = [remote for remote in wanted if remote.name != ".gitattributes"]
        if not chosen or (ref.kind == "model" and not any(r.name.endswith(("safetensors", "bin")) for r in chosen)):
            raise UserError(
                f"{ref.kind} {ref.repo} at {commit[:7]} has nothing to fetch",
                f"in it: {', '.join(remote.name for remote in remotes) or 'nothing'}",
                "models need weights as safetensors (or model.allow_pickle_weights: true)",
            )
        return chosen

    def fetch(self, ref: Reference, commit: str, remote: Remote) -> File:
        """Bring one file into the cache and check it; a damaged one is taken once more.

        Raises UserError when it differs again, when the disk is full, or the hub says no; Interrupted when it stays
        away.
        """
        wanted = ref.sha256.get(remote.name) or remote.sha256
        for last in (False, True):
            path = self._bring(ref, commit, remote)
            found = File(path.stat().st_size, sha256(path))
            whole = found.bytes == remote.bytes and (found.sha256 == wanted if wanted else _git(path) == remote.git)
            if whole:
                return found
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            if not last:
                self.say(f"{ref.repo} {remote.name} arrived damaged: once more")
        raise UserError(
            f"{ref.kind} {ref.repo}: {remote.name} is not what is pinned",
            f"its SHA-256 is {found.sha256}, wanted is {wanted}"
            if wanted
            else "its git hash differs from the hub's list",
            "something between here and the hub changes files; try another network or HF_ENDPOINT",
        )

    def _bring(self, ref: Reference, commit: str, remote: Remote) -> Path:
        from huggingface_hub import hf_hub_download

        def download() -> Path:
            if remote.sha256 is not None:
                self._large(ref, commit, remote, remote.sha256)
            return Path(
                hf_hub_download(
                    ref.repo, remote.name, repo_type=ref.kind, revision=commit, cache_dir=self.cache,
                    endpoint=self.endpoint, etag_timeout=TIMEOUT,
                )
            )  # fmt: skip

        return self._patiently(download, ref, remote.name)

    def _large(self, ref: Reference, commit: str, remote: Remote, digest: str) -> None:
        """Put a large file where huggingface_hub looks for it (blobs/<sha256>), going on after what is there."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        blob = repository(ref, self.cache) / "blobs" / digest
        if blob.exists():
            return
        blob.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(ref, remote, self.cache)
        with part.open("ab") as file:
            there = file.tell()
            if there > remote.bytes:
                file.truncate(0)
                there = 0
            url = hf_hub_url(ref.repo, remote.name, repo_type=ref.kind, revision=commit, endpoint=self.endpoint)
            if there < remote.bytes:
                http_get(url, file, resume_size=there, headers=build_hf_headers(), expected_size=remote.bytes)
        if sha256(part) != digest:
            part.unlink()
            raise OSError(f"{remote.name} arrived damaged")  # tried again, from its first byte
        part.rename(blob)

    def _patiently(self, call: Callable[[], T], ref: Reference, what: str) -> T:
        """Raises UserError for what will not pass (no such repository, no access, disk full), Interrupted (exit code
        75) when the hub stays away: the same command resumes later."""
        fix = "\n  fix: give the same command again when the network is back; it resumes where it stopped"
        return patiently(
            call,
            self.waits,
            doing=f"{ref.repo}: {what}",
            say=self.say,
            final=lambda error: _final(error, ref),
            gave_up=lambda reason: Interrupted(f"{ref.kind} {ref.repo}: {what} could not be had: {reason}{fix}"),
        )

    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint)


def patiently(
    call: Callable[[], T],
    waits: Iterable[float],
    *,
    doing: str,
    say: Callable[[str], None],
    final: Callable[[Exception], UserError | None],
    gave_up: Callable[[str], Exception],
) -> T:
    """Call again after an error that may pass, with growing pauses. The fault boundary towards the hub.

    Raises what `final` makes of an error that will not pass, and what `gave_up` makes of the last one's reason.
    """
    for wait in (*waits, None):
        try:
            return call()
        except ExplainedError:
            raise
        except Exception as error:  # noqa: BLE001 - named fault boundary: the hub
            if (refusal := final(error)) is not None:
                raise refusal from None
            reason = redact(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]
            if wait is None:
                raise gave_up(reason) from None
            pause = min(LONGEST_WAIT, max(wait * random.uniform(0.8, 1.2), _retry_after(error)))
            say(f"{doing}: {reason}; trying again in {pause:.0f} s")
            time.sleep(pause)
    raise AssertionError("not reached")


def part_of(ref: Reference, remote: Remote, cache: Path) -> Path:
    """Where a large file grows until it is whole."""
    return repository(ref, cache) / "blobs" / f"{remote.sha256}.part"


def _final(error: Exception, ref: Reference) -> UserError | None:
    """The refusal for an error that trying again cannot fix, or None."""
    from huggingface_hub import errors

    name = f"{ref.purpose}: {ref.kind} {ref.repo}"
    page = f"https://huggingface.co/{'datasets/' if ref.kind == 'dataset' else ''}{ref.repo}"
    access = "set HF_TOKEN to a token that may read it"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return None  # huggingface_hub's word for a hub that does not answer
    known: list[tuple[type[Exception], str, str]] = [
        (errors.GatedRepoError, "is gated", f"accept its terms at {page}, and {access}"),
        (errors.RevisionNotFoundError, f"has no commit {ref.revision}", "check the revision in the recipe"),
        (errors.RepositoryNotFoundError, "is not on the hub, or not for everybody", f"check its name, or {access}"),
        (errors.EntryNotFoundError, "lacks a file that its list names", "check the revision in the recipe"),
        (errors.HFValidationError, "is not a name of a repository", "owner/name, as on the hub"),
        (errors.OfflineModeIsEnabled, "is not in the cache, and HF_HUB_OFFLINE is set", "unset it to fetch"),
    ]
    for kind, what, fix in known:
        if isinstance(error, kind):
            return UserError(f"{name} {what}", fix=fix)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{name}: the disk is full", fix="make room and give the same command again: it resumes")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return UserError(f"{name}: {error.filename} cannot be written: {error.strerror}", fix="set HF_HOME elsewhere")
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        return UserError(f"{name}: the hub says no", fix=access)
    return None


def _retry_after(error: Exception) -> float:
    text = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "0")
    return float(text) if str(text).isdigit() else 0.0


def _git(path: Path) -> str:
    """git's hash of a file's content (SHA-1 over a header and the bytes)."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

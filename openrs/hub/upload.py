"""Pushing an exported model to the hub, when `openrs export --push` asks for it, with retries while the hub fails."""

from collections.abc import Callable
from pathlib import Path

from openrs.errors import RunFailure, UserError
from openrs.hub.cache import offline
from openrs.hub.download import patiently
from openrs.run.libraries import quiet

WAITS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds between tries; the last one again and again
TIMEOUT = 60.0  # seconds without an answer


def push(folder: Path, repo: str, *, private: bool, say: Callable[[str], None], tries: int) -> str:
    """Upload a model folder as one commit, trying again while the hub fails in ways that pass; returns the commit.

    What a broken try has uploaded is not sent again: the hub keeps large files by their SHA-256. Raises UserError where
    trying again cannot help (no token, no right, no such name), RunFailure after `tries`.
    """
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    get_session().timeout = TIMEOUT  # huggingface_hub 1.33 itself would wait for ever

    def send() -> str:
        HfApi().create_repo(repo, private=private, exist_ok=True)
        message = f"openrs: {folder.name}"
        done = HfApi().upload_folder(repo_id=repo, folder_path=folder, commit_message=message, ignore_patterns=[".*"])
        return str(done.commit_url)

    def final(error: Exception) -> UserError | None:
        if isinstance(error, errors.HFValidationError):
            return UserError(f"{repo} is not a name of a repository", fix="owner/name, as on the hub")
        denied = getattr(getattr(error, "response", None), "status_code", 0) in (401, 403)
        if denied or isinstance(error, errors.LocalTokenNotFoundError):
            return UserError(f"the hub does not let us write to {repo}", fix="set HF_TOKEN to a token that may")
        return None

    return patiently(
        send,
        [WAITS[min(number, len(WAITS) - 1)] for number in range(tries - 1)],
        doing=f"pushing {folder.name} to {repo}",
        say=say,
        final=final,
        gave_up=lambda reason: RunFailure(
            f"{folder.name} could not be pushed to {repo}: {reason}",
            fix="the same command tries again, and sends only what is missing",
        ),
    )


def check(repo: str | None) -> None:
    """Refuse, before anything is written, what could never be pushed: offline, no token, no such name."""
    if repo is None:
        return
    quiet()  # before the hub's library reads from the environment whether it may send telemetry
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(f"--push {repo}: not the name of a repository", fix="owner/name, as on the hub") from None
    if offline():
        raise UserError(f"--push {repo}: HF_HUB_OFFLINE is set", fix="set HF_HUB_OFFLINE=0 (docker compose run: -e)")
    if get_token() is None:
        raise UserError(f"--push {repo}: there is no token for the hub", fix="set HF_TOKEN to one that may write there")

"""Pushing exported models to the hub: only when asked for, in a process of its own, for as long as it takes.

The queue is on disk: RUN/uploads/step-NNNNNN are models that wait, RUN/uploads.jsonl lists those that are there. A hub
that is slow, full of errors or gone delays uploads and nothing else; what is left waits for the next launch.
"""

import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openrs.errors import EXIT_DONE, EXIT_FAILED, ExplainedError, RunFailure, UserError
from openrs.hub.cache import offline
from openrs.hub.export import export
from openrs.run import checkpoints, terminal
from openrs.run.confined import open_appending
from openrs.run.directory import Run
from openrs.run.files import Journal, now, read_jsonl, redact, write_json
from openrs.run.libraries import quiet
from openrs.run.processes import die_with_parent

WAITS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds between tries; the last one again and again
TIMEOUT = 60.0  # seconds without an answer
PATIENCE = 1800.0  # seconds after training in which no model gets there; then the rest is for later, GPUs cost money
POLL = 2.0
PROCESS = (sys.executable, "-m", "openrs.hub.upload")


class _NotNow(Exception):  # noqa: N818 - a state of the hub
    """The hub failed in a way that may pass. `asks`: seconds that it wants us to wait."""

    def __init__(self, reason: str, asks: float) -> None:
        super().__init__(reason)
        self.asks = asks


def push(folder: Path, repo: str, *, private: bool, say: Callable[[str], None], tries: int) -> str:
    """Upload a model folder as one commit, trying again while the hub fails in ways that pass; returns the commit.

    What a broken try has uploaded is not sent again: the hub keeps large files by their SHA-256. Raises UserError where
    trying again cannot help (no token, no right, no such name), RunFailure after `tries`.
    """
    for number in range(1, tries + 1):
        try:
            return _push_once(folder, repo, private=private)
        except _NotNow as failed:
            if number == tries:
                raise RunFailure(
                    f"{folder.name} could not be pushed to {repo}: {failed}",
                    fix="the same command tries again, and sends only what is missing",
                ) from None
            pause = _pause(number, failed)
            say(f"pushing {folder.name} to {repo}: {failed}; trying again in {pause:.0f} s")
            time.sleep(pause)
    raise AssertionError("not reached")


def _push_once(folder: Path, repo: str, *, private: bool) -> str:
    from huggingface_hub import HfApi, errors
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    get_session().timeout = TIMEOUT  # huggingface_hub 1.33 itself would wait for ever
    try:
        HfApi().create_repo(repo, private=private, exist_ok=True)
        message = f"openrs: {folder.name}"
        done = HfApi().upload_folder(repo_id=repo, folder_path=folder, commit_message=message, ignore_patterns=[".*"])
        return str(done.commit_url)
    except Exception as error:  # noqa: BLE001 - named fault boundary: the hub
        response = getattr(error, "response", None)
        if isinstance(error, errors.HFValidationError):
            raise UserError(f"{repo} is no name of a repository", fix="owner/name, as on the hub") from None
        if isinstance(error, errors.LocalTokenNotFoundError) or getattr(response, "status_code", 0) in (401, 403):
            raise UserError(
                f"the hub does not let us write to {repo}", fix="set HF_TOKEN to a token that may"
            ) from None
        asks = str(getattr(response, "headers", {}).get("Retry-After", "0"))
        reason = redact(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]
        raise _NotNow(reason, float(asks) if asks.isdigit() else 0.0) from None


def _pause(number: int, failed: _NotNow) -> float:
    """Seconds to wait after the `number`-th failure in a row."""
    return max(WAITS[min(number, len(WAITS)) - 1] * random.uniform(0.8, 1.2), min(failed.asks, WAITS[-1]))


def check(repo: str | None, runs: int = 1) -> None:
    """Refuse, before hours of training, what could never be pushed: offline, no token, no such name, several in one."""
    if repo is None:
        return
    quiet()  # before the hub's library reads from the environment whether it may send telemetry
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(f"--push {repo}: no name of a repository", fix="owner/name, as on the hub") from None
    if offline():
        raise UserError(f"--push {repo}: HF_HUB_OFFLINE is set", fix="set HF_HUB_OFFLINE=0 (docker compose run: -e)")
    if get_token() is None:
        raise UserError(f"--push {repo}: there is no token for the hub", fix="set HF_TOKEN to one that may write there")
    if runs > 1:
        raise UserError(f"--push {repo}: {runs} runs would overwrite each other there", fix="export them one by one")


# --- the queue --------------------------------------------------------------------------------------------------------


def _wanted(run: Run) -> Path:
    """Where it stands that this run's checkpoints are to be pushed, and to which repository."""
    return run.path / "uploads.json"


def _done(run: Run, repo: str) -> set[int]:
    return {row["step"] for row in read_jsonl(run.path / "uploads.jsonl") if row["repo"] == repo}


def waiting(run: Run, repo: str) -> list[int]:
    """Steps of which the model is to be pushed yet, oldest first."""
    folders = [*checkpoints.list_complete(run.checkpoints), *(run.path / "uploads").glob(checkpoints.PLACE)]
    return sorted({checkpoints.step_of(folder) for folder in folders} - _done(run, repo))


def held(run: Run) -> list[int]:
    """Steps whose checkpoints retention must leave alone: they are to be pushed, and not exported yet."""
    if not _wanted(run).is_file():
        return []
    repo = json.loads(_wanted(run).read_text(encoding="utf-8"))["repo"]
    return [step for step in waiting(run, repo) if not _place(run, step).is_dir()]


def _place(run: Run, step: int) -> Path:
    return checkpoints.folder_of(run.path / "uploads", step)


@contextmanager
def beside(run: Run, repo: str | None, say: Callable[[str], None], *, private: bool = True) -> Iterator[None]:
    """While the block trains, a process of its own pushes each checkpoint that gets complete. None: nothing is pushed.

    After the block it may finish what waits, as long as it gets on (PATIENCE). When it does not, or when the block is
    left by an exception, the queue stays as it is.
    """
    if repo is None:
        _wanted(run).unlink(missing_ok=True)
        yield
        return
    write_json(_wanted(run), {"repo": repo, "private": private})
    log = run.attempts()[-1] / "uploads.log"
    with os.fdopen(open_appending(log), "ab") as file:
        words = [*PROCESS, str(run.path), str(os.getpid())]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True)
    try:
        yield
        assert child.stdin is not None
        child.stdin.close()  # no more will come
        left, minutes = len(waiting(run, repo)), f"{PATIENCE / 60:.3g} minutes"
        if left:
            say(f"pushing {left} checkpoints to {repo} (Ctrl-C, or {minutes} without one that gets there: for later)")
        code = _finished(child, lambda: len(waiting(run, repo)))
        if code is None:
            left = len(waiting(run, repo))
            say(
                f"{left} checkpoints are not pushed, for {minutes} none got to {repo}; the same command goes on ({log})"
            )
        elif code != EXIT_DONE:
            say(f"not everything is pushed, see {log}; the same command goes on")
    finally:
        child.kill()
        child.wait()


def _finished(child: "subprocess.Popen[bytes]", left: Callable[[], int]) -> int | None:
    """The exit code of the process that pushes; None when what is `left` has not got less for PATIENCE seconds."""
    least, since = left(), time.monotonic()
    while time.monotonic() - since < PATIENCE:
        try:
            return child.wait(timeout=min(POLL, PATIENCE))
        except subprocess.TimeoutExpired:
            if (now_left := left()) < least:
                least, since = now_left, time.monotonic()
    return None


def work(run: Run, repo: str, *, private: bool, ended: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Push what waits and what comes, until `ended` and nothing waits. While the hub fails, models are still exported,
    so that retention can let their checkpoints go."""
    failures, next_try = 0, 0.0
    while True:
        last = ended()
        for step in waiting(run, repo):
            if not _place(run, step).is_dir():
                export(run, step, _place(run, step))
        steps = waiting(run, repo)
        if not steps and last:
            return
        if not steps or time.monotonic() < next_try:
            continue
        folder = _place(run, steps[0])
        try:
            url = _push_once(folder, repo, private=private)
        except _NotNow as failed:
            failures += 1
            pause = _pause(failures, failed)
            next_try = time.monotonic() + pause
            say(f"pushing {folder.name} to {repo}: {failed}; trying again in {pause:.0f} s")
            continue
        failures = 0
        with Journal(run.path / "uploads.jsonl") as journal:
            journal.append({"step": steps[0], "repo": repo, "commit": url, "time": now()})
        shutil.rmtree(folder)
        say(f"{folder.name} is pushed: {url}")


def main(path: str, starter: int) -> int:
    """The process beside: until stdin ends and nothing waits."""
    die_with_parent(starter)
    quiet()
    run = Run(Path(path))
    wanted: dict[str, Any] = json.loads(_wanted(run).read_text(encoding="utf-8"))
    closed = False

    def ended() -> bool:
        nonlocal closed
        if closed:
            time.sleep(min(POLL, WAITS[0]))
        else:
            closed = bool(select.select([0], [], [], POLL)[0])
        return closed

    def say(text: str) -> None:
        terminal.say(f"{now()} {text}")  # its stdout is the log

    try:
        work(run, wanted["repo"], private=wanted["private"], ended=ended, say=say)
    except ExplainedError as error:
        say(str(error))
        return EXIT_FAILED
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))

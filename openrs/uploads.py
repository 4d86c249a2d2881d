"""Pushing exported models to the hub: only when asked for, in a process of its own, for as long as it takes.

The queue is the run itself: complete checkpoints that uploads.jsonl does not list. A hub that is slow, full of errors
or gone delays uploads and nothing else; what is left waits for the next launch, or for `openrs export RUN --push`.
"""

import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openrs.errors import EXIT_DONE, EXIT_FAILED, Failure, Refusal
from openrs.export import export
from openrs.rundir import Journal, Run, now, read_jsonl, redact, write_json
from openrs.training import checkpoints
from openrs.training.processes import die_with_parent

WAITS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)  # seconds between tries; the last one again and again
TIMEOUT = 60.0  # seconds without an answer
POLL = 2.0


def push(folder: Path, repo: str, *, private: bool, say: Callable[[str], None], tries: int | None = None) -> str:
    """Upload a model folder as one commit, trying again while the hub fails in ways that pass; returns the commit.

    What a broken try has uploaded is not sent again: the hub keeps large files by their SHA-256. Raises Refusal where
    trying again cannot help (no token, no right, no such name), Failure after `tries`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    get_session().timeout = TIMEOUT  # huggingface_hub 1.33 itself would wait for ever
    api, number = HfApi(), 0
    while True:
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message=f"openrs: {folder.name}", ignore_patterns=[".*"]
            )
            return str(done.commit_url)
        except Exception as error:  # noqa: BLE001 - named fault boundary: the hub
            _refuse_for_good(error, repo)
            number += 1
            reason = redact(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]
            if number == tries:
                raise Failure(
                    f"{folder.name} could not be pushed to {repo}: {reason}",
                    mend="the same command tries again, and sends only what is missing",
                ) from None
            pause = max(WAITS[min(number, len(WAITS)) - 1] * random.uniform(0.8, 1.2), _retry_after(error))
            say(f"pushing {folder.name} to {repo}: {reason}; trying again in {pause:.0f} s")
            time.sleep(pause)


def _refuse_for_good(error: Exception, repo: str) -> None:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.HFValidationError):
        raise Refusal(f"{repo} is no name of a repository", mend="owner/name, as on the hub") from None
    if isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
        raise Refusal(f"the hub does not let us write to {repo}", mend="set HF_TOKEN to a token that may") from None


def _retry_after(error: Exception) -> float:
    text = str(getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "0"))
    return min(float(text), WAITS[-1]) if text.isdigit() else 0.0


# --- the queue --------------------------------------------------------------------------------------------------------


def _places(run: Run) -> tuple[Path, Path]:
    """What is wanted (a repository), and what is done."""
    return run.path / "uploads.json", run.path / "uploads.jsonl"


def waiting(run: Run, repo: str) -> list[int]:
    """Steps whose complete checkpoints have not been pushed to `repo`, oldest first."""
    done = {row["step"] for row in read_jsonl(_places(run)[1]) if row["repo"] == repo}
    steps = [checkpoints.step_of(folder) for folder in checkpoints.complete(run.checkpoints)]
    return [step for step in steps if step not in done]


def held(run: Run) -> list[int]:
    """Steps whose checkpoints retention must leave alone: they are to be pushed, and not exported yet."""
    if not _places(run)[0].is_file():
        return []
    steps = [checkpoints.step_of(folder) for folder in checkpoints.complete(run.checkpoints)]
    return [step for step in steps if not (run.path / "export" / f"step-{step:06d}").is_dir()]


def push_waiting(run: Run, repo: str, *, private: bool, say: Callable[[str], None]) -> int:
    """Export and push, once each, what waits; returns how many. Does not give up on a hub that fails for a while."""
    steps = waiting(run, repo)
    for step in steps:
        export(run, step)  # first all exports: they free the checkpoints
    for step in steps:
        folder = run.path / "export" / f"step-{step:06d}"
        url = push(folder, repo, private=private, say=say)
        with Journal(_places(run)[1]) as journal:
            journal.append({"step": step, "repo": repo, "commit": url, "time": now()})
        say(f"{folder.name} is pushed: {url}")
    return len(steps)


@contextmanager
def beside(run: Run, repo: str | None, say: Callable[[str], None], *, private: bool = True) -> Iterator[None]:
    """While the block trains, a process of its own pushes each checkpoint that gets complete. None: nothing is pushed.

    After the block it may finish what waits; when the block is left by an exception, the queue stays as it is.
    """
    wanted = _places(run)[0]
    if repo is None:
        wanted.unlink(missing_ok=True)
        yield
        return
    write_json(wanted, {"repo": repo, "private": private})
    log = run.attempts()[-1] / "uploads.log"
    with log.open("ab") as file:
        words = [sys.executable, "-m", "openrs.uploads", str(run.path), str(os.getpid())]
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True)
    try:
        yield
        assert child.stdin is not None
        child.stdin.close()  # no more will come
        left = waiting(run, repo)
        if left:
            say(f"pushing {len(left)} checkpoints to {repo} (Ctrl-C leaves them for later)")
        if child.wait() != EXIT_DONE:
            say(f"not everything is pushed: {log}; openrs export {run.path} --push {repo} goes on")
    finally:
        child.kill()
        child.wait()


def main(path: str, starter: int) -> int:
    """The process beside: push until stdin ends and nothing waits."""
    die_with_parent(starter)
    run = Run(Path(path))
    wanted: dict[str, Any] = json.loads(_places(run)[0].read_text(encoding="utf-8"))

    def say(text: str) -> None:
        print(f"{now()} {text}", flush=True)  # noqa: T201 - its stdout is the log

    try:
        while True:
            last = bool(select.select([0], [], [], POLL)[0])
            push_waiting(run, wanted["repo"], private=wanted["private"], say=say)
            if last:
                return EXIT_DONE
    except Refusal as refusal:
        say(str(refusal))
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))

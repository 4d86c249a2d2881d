"""Runs a command in a process group of its own, and ends the whole group when whoever started us is gone.

`python process_supervisor.py GRACE COMMAND ...`, with a pipe from the starter as stdin: its end, by any cause, ends all
of them. vLLM's engine processes live on for good when the server in front of them is killed; the kernel's parent-death
signal reaches only the nearest child. Only the standard library, and nothing of openrs: it starts in 20 ms and stays
small.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time


def main(grace: float, words: list[str]) -> int:
    """Returns the command's exit code, 128 + its number for a signal, as shells do."""
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_name_parent)  # noqa: PLW1509 - there are no threads here
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pipe is what counts
    while child.poll() is None:
        readable, _, _ = select.select([0], [], [], 0.25)
        if readable and not os.read(0, 4096):
            if grace:
                _signal(child.pid, signal.SIGTERM)
                _wait(child, grace)
            break
    _signal(child.pid, signal.SIGKILL)  # and what it left behind in its group
    code = child.wait()
    return code if code >= 0 else 128 - code


def _name_parent() -> None:
    """Tell what the command starts, in its environment, who started it (processes.die_with_parent)."""
    os.environ["OPENRS_PARENT"] = str(os.getpid())


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _wait(child: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))

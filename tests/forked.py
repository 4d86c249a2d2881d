"""Python programs as forks of the test process: what it has imported, they need not import again (torch and
transformers take 7 s of processor time).

For tests in which nothing hangs on a fresh interpreter. A fork is a process of its own all the same: the test is its
parent, it can be killed, and its streams, folder and environment are what Popen's options say. It sees what the test
has monkeypatched.
"""

import atexit
import faulthandler
import logging
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
import types
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import hang_limits


class Popen(subprocess.Popen):
    """subprocess.Popen, but `sys.executable [-P] (-m MODULE | -c CODE | FILE) WORDS` is forked."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        words = [] if isinstance(args, str | bytes | os.PathLike) else [os.fspath(word) for word in args]
        if words[:1] != [sys.executable]:
            super()._execute_child(args, *rest)
            return
        _, _, _, pass_fds, cwd, env, _, _, _, *pipes = rest[:15]
        child_in, parent_in, parent_out, child_out, parent_err, child_err = pipes
        sys.stdout.flush()
        sys.stderr.flush()
        started, starting = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(words[1:], cwd, env, (child_in, child_out, child_err), pass_fds, new_session=rest[20])
        self._child_created = True
        os.close(starting)
        os.read(started, 1)  # until the child has its own session and has closed what it inherited, as after an exec
        os.close(started)
        self._close_pipe_fds(child_in, parent_in, parent_out, child_out, parent_err, child_err)


def run(command: Sequence[object], given: str | None = None, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The program to its end, with its streams as text; `given` goes to its input."""
    source = subprocess.DEVNULL if given is None else subprocess.PIPE
    pipes = {"stdin": source, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, text=True, **pipes, **options) as process:
        out, error = process.communicate(given)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def _become(
    words: list[str],
    folder: Any,
    environment: Mapping[str, str] | None,
    streams: tuple[int, int, int],
    keep: Sequence[int],
    *,
    new_session: bool,
) -> NoReturn:
    """Be the program that `words` name, and end as it does."""
    try:
        faulthandler.disable()
        if new_session:
            os.setsid()
        _take_streams(streams, keep)
        if folder is not None:
            os.chdir(folder)
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
        _forget_the_parent()
    except BaseException:  # noqa: BLE001 - the child must never go on into pytest
        traceback.print_exc()
        os._exit(97)
    code = 1
    try:
        try:
            _run(words)
            code = 0
        except SystemExit as end:
            code = _code_of(end)
        except KeyboardInterrupt:
            traceback.print_exc()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:  # noqa: BLE001 - as an interpreter does
            traceback.print_exc()
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _take_streams(streams: tuple[int, int, int], keep: Sequence[int]) -> None:
    copies = [os.dup(given) if given >= 0 else None for given in streams]
    for number, copy in enumerate(copies):
        if copy is not None:
            os.dup2(copy, number)
        os.set_inheritable(number, True)
    kept = sorted({2, *keep})
    for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
    sys.stdin = sys.__stdin__ = os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)


def _forget_the_parent() -> None:
    """What pytest and the test hold is theirs: handlers, clean-ups at the end, helper processes of multiprocessing."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM, hang_limits.SIGNAL):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    multiprocessing.resource_tracker._resource_tracker.__init__()  # type: ignore[misc, attr-defined]
    multiprocessing.forkserver._forkserver.__init__()  # type: ignore[misc, attr-defined]
    logging.root.handlers.clear()
    warnings.simplefilter("ignore")


def _run(words: list[str]) -> None:
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [place for place in places if place and place not in sys.path]
    if words[0] == "-P":
        words = words[1:]
    else:
        sys.path.insert(0, "" if words[0] in ("-m", "-c") else os.path.dirname(words[0]))  # noqa: PTH120
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _code_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    sys.stderr.write(f"{end.code}\n")
    return 1

"""The command line: which verbs there are, and how a command ends.

Modules that a verb needs are imported when it is called: `openrs --help` stays light, and only what computes imports
torch.
"""

import argparse
import atexit
import contextlib
import errno
import gc
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from openrs import __version__
from openrs.cli import cluster, completion, curate, evaluate, plan, recipe, train
from openrs.cli.options import Verb
from openrs.errors import EXIT_INTERRUPTED, ExplainedError, Interrupted, UserError, not_installed
from openrs.run.confined import limit_permissions
from openrs.run.disk_faults import explained
from openrs.run.terminal import say, show_traceback


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="openrs", description="Reproduce the Open-RS paper, check its claims, train your own model."
    )
    top.add_argument("--version", action="version", version=f"openrs {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for group in (train, evaluate, recipe, curate, plan, cluster):
        group.add(verbs)
    completion.add(verbs, parser)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns its exit code: 0 done, 1 failed, 2 bad configuration or data, 75 interrupted and resumable.

    An unexpected exception propagates: Python prints the traceback and exits with 1."""
    args = parser().parse_args(argv)
    try:
        if args.verb != "fetch":  # a cache may be shared by a group
            limit_permissions()
        function: Verb = args.function
        return function(args)
    except (ExplainedError, ModuleNotFoundError, OSError) as error:
        failure = _explained(error)
        if failure is None:
            raise
        message, code = str(failure), failure.exit_code
    except (Interrupted, KeyboardInterrupt) as stop:
        message, code = str(stop) if isinstance(stop, Interrupted) else "stopped by Ctrl-C", EXIT_INTERRUPTED
    say(f"openrs {args.verb}: {message}", error=True)
    return code


def _explained(error: ExplainedError | ModuleNotFoundError | OSError) -> ExplainedError | None:
    """The error with its why and fix; None for a bug."""
    if isinstance(error, ExplainedError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return not_installed(error)
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):  # whoever asks whether a name of a recipe is a file
        return UserError(f"{str(error.filename)[:200]}: {error.strerror}", fix="give another name")
    return explained(error, Path(error.filename or ".").parent, "starts over or resumes")


def program() -> NoReturn:
    """Entry point of `openrs`. Does what is registered for the end of the program, and then ends the process instead of
    taking Python down piece by piece: that takes two seconds when torch is loaded, and nanobind (in vLLM's libraries)
    would print a page of objects that nobody freed."""
    sys.excepthook = _uncaught
    code = main()
    gc.freeze()
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does first: threads that are no daemons end
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):  # a closed terminal
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    show_traceback(kind, error, trace)
    gc.freeze()

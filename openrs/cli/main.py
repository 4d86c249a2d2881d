"""The command line: which verbs there are, and how a command ends."""

import argparse
import gc
import sys
from collections.abc import Sequence
from typing import NoReturn

from openrs import __version__
from openrs.cli import cluster, curate, evaluate, plan, recipe, train
from openrs.cli.options import Verb
from openrs.errors import EXIT_INTERRUPTED, ExplainedError, Interrupted, not_installed
from openrs.run.files import redact


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="openrs", description="Reproduce the Open-RS paper, check its claims, train your own model."
    )
    top.add_argument("--version", action="version", version=f"openrs {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for group in (train, evaluate, recipe, curate, plan, cluster):
        group.add(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns its exit code: 0 done, 1 failed, 2 bad configuration or data, 75 interrupted and resumable.

    An unexpected exception propagates: Python prints the traceback and exits with 1."""
    args = parser().parse_args(argv)
    try:
        function: Verb = args.function
        return function(args)
    except ExplainedError as error:
        print(redact(f"openrs {args.verb}: {error}"), file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = not_installed(error)
        if missing is None:
            raise
        print(f"openrs {args.verb}: {missing}", file=sys.stderr)
        return missing.exit_code
    except Interrupted as interrupted:
        print(redact(f"openrs {args.verb}: {interrupted}"), file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print(f"openrs {args.verb}: stopped by Ctrl-C", file=sys.stderr)
        return EXIT_INTERRUPTED


def program() -> NoReturn:
    """Entry point of `openrs`. Skips the final garbage collection, which takes two seconds when torch is loaded."""
    code = main()
    gc.freeze()
    sys.exit(code)

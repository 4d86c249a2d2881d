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
        prog="openrs", description="Run the Open-RS paper again, know what of it is true, train your own."
    )
    top.add_argument("--version", action="version", version=f"openrs {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for group in (train, evaluate, recipe, curate, plan, cluster):
        group.add(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0 done, 2 bad configuration or data, 75 interrupted, resumable; 1 has a trace."""
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
    """The command itself. At the end its memory goes back to the kernel: to search it for garbage first, as Python
    does, takes two seconds when torch is loaded."""
    code = main()
    gc.freeze()
    sys.exit(code)

"""One of the training processes that torchrun starts: `python -m openrs.training.worker RUN [...]` (see launch.py).

The parent holds the run's lock and its attempt, and has prepared the model. Rank 0 writes the run's records and the
log, and reports to the terminal; whatever else any process prints goes to the attempt's processes.log.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from openrs.config.load import load_resolved
from openrs.errors import EXIT_DONE
from openrs.run import processes, signals
from openrs.run.directory import Run
from openrs.run.files import write_text
from openrs.run.libraries import quiet
from openrs.run.progress import Progress
from openrs.run.terminal import say
from openrs.training.vllm_server import Address


def main(argv: Sequence[str] | None = None) -> int:
    """Train as one of several. Returns the exit code; why, stands in the attempt's outcome-<rank>.json."""
    parser = argparse.ArgumentParser(prog="python -m openrs.training.worker", description=__doc__)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--attempt", type=Path, required=True, help="folder of this attempt")
    parser.add_argument("--from-checkpoint", type=Path, help="checkpoint to resume from")
    parser.add_argument("--server", metavar="PORT", type=int, help="of the vLLM server, in the split layout")
    parser.add_argument("--group-port", type=int, help="where trainer and vLLM server meet for the weights")
    args = parser.parse_args(argv)

    processes.die_with_parent()
    number = processes.rank()
    progress = _progress(args.attempt, number)
    quiet(args.attempt / f"libraries-{number}.log")
    server = Address(args.server, args.group_port) if args.server is not None else None
    try:
        with signals.install_handlers():
            write_text(args.attempt / f"worker-{number}.pid", str(os.getpid()))  # now a signal may come
            from openrs.training import train as grpo

            run = Run(args.run)
            recipe = load_resolved(run.recipe)
            prepared = grpo.prepare_worker(recipe, run, progress, args.from_checkpoint)
            grpo.train_from(recipe, run, progress, prepared, server)
        outcome = processes.Outcome(number, EXIT_DONE)
    except BaseException as error:  # noqa: BLE001 - the end of this process: its outcome is written, whatever it is
        say(traceback.format_exc(), end="", error=True)
        outcome = processes.outcome_of(error)
    processes.write_outcome(args.attempt, outcome)
    progress.close()
    return outcome.code


def _progress(attempt: Path, number: int) -> Progress:
    """Rank 0 writes to the terminal and the log. Then everything that libraries print to stdout goes to stderr."""
    if number == 0:
        progress = Progress(attempt / "log", os.fdopen(os.dup(1), "w", encoding="utf-8"))
    else:
        progress = Progress(None, Path(os.devnull).open("w"))  # noqa: SIM115 - open as long as this process is
    os.dup2(2, 1)
    return progress


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # libraries' exit handlers may wait for processes that are gone

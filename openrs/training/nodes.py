"""One training process of several nodes: `torchrun --nnodes 3 --nproc-per-node 4 -m openrs.training.nodes exp3 [...]`.

On one node launch.py starts torchrun itself. On several something else does (JobSet, Kubeflow's TrainJob, Slurm), once
a node, and nobody stands above all processes. So rank 0 does what launch.py does there: it holds the run's lock and its
attempt, and tells the others over torchrun's own store from which checkpoint to resume. runs/ has to be one folder that
all nodes see. torchrun turns every exit code into 1; the real one stands in the attempt's outcome-<rank>.json.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from openrs.config.load import load
from openrs.config.names import Layout
from openrs.config.schema import Recipe
from openrs.errors import EXIT_DONE, EXIT_FAILED, ExplainedError, UserError
from openrs.run import processes, signals
from openrs.run.attempt import attempt
from openrs.run.confined import limit_permissions
from openrs.run.directory import Run, run_at
from openrs.run.libraries import quiet
from openrs.run.progress import Progress
from openrs.run.terminal import say
from openrs.training import train as grpo
from openrs.training.launch import environment

WAIT = timedelta(minutes=30)  # for rank 0 to read checkpoints and hash weights; the other nodes may be pulling images


def main(argv: Sequence[str] | None = None) -> int:
    """Train as one of several. Returns the exit code, as `openrs train` would."""
    parser = argparse.ArgumentParser(prog="torchrun ... -m openrs.training.nodes", description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument(
        "run", nargs="?", help="the run's name; no option, torchrun would take --run for its --run-path"
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    processes.die_with_parent()
    number = processes.rank()
    try:
        limit_permissions()
        recipe = load(args.recipe, args.overrides)
        run = run_at(args.run or Path(args.recipe).stem)
        refuse_mismatch(recipe)
        os.environ.update(environment(recipe, run))
        return _first(recipe, run) if number == 0 else _other(recipe, run)
    except BaseException as error:  # noqa: BLE001 - the end of this process: it is reported, whatever it is
        outcome = processes.outcome_of(error)
        text = str(error) if isinstance(error, ExplainedError) else traceback.format_exc()
        say(f"training process {number}: {text}", error=True)
        return outcome.code


def refuse_mismatch(recipe: Recipe) -> None:
    """The recipe's processes have to be torchrun's: the batch, and so the gradient, depend on their number."""
    started = int(os.environ.get("WORLD_SIZE", "0"))
    if not started:
        raise UserError("this is started by torchrun only", fix="on one node: openrs train")
    if recipe.hardware.layout is Layout.SPLIT:
        raise UserError(
            "the split layout is for one node: its server answers only there",
            fix="--set hardware.layout=colocate, with vLLM in every training process",
        )
    if recipe.hardware.world_size != started:
        raise UserError(
            f"torchrun started {started} processes, the recipe needs {recipe.hardware.world_size}",
            "completions a step = processes x micro-batch x accumulation",
            f"--set hardware.gpus={started}, and accumulation so that the product stays (docs/kubernetes.md)",
        )


def _first(recipe: Recipe, run: Run) -> int:
    """Rank 0: lock, attempt, checkpoint; then as the others."""
    store, announced = _store(), False
    try:
        with attempt(recipe, run) as progress:
            prepared = grpo.prepare(recipe, run, progress)
            folder, start = run.attempts()[-1], None if prepared.start is None else str(prepared.start)
            store.set(_key(), json.dumps({"attempt": str(folder), "start": start, "done": prepared.done}))
            announced = True
            if not prepared.done:
                progress.say(f"training in {recipe.hardware.world_size} processes")
                grpo.train_from(recipe, run, progress, prepared)
            processes.write_outcome(folder, processes.Outcome(0, EXIT_DONE))
    except BaseException as error:
        outcome = processes.outcome_of(error)
        if not announced:
            store.set(_key(), json.dumps({"failed": outcome.code}))
        elif run.attempts():
            processes.write_outcome(run.attempts()[-1], outcome)
        raise
    return EXIT_DONE


def _other(recipe: Recipe, run: Run) -> int:
    """All ranks but 0: wait for rank 0's message, and train."""
    message: dict[str, Any] = json.loads(_store().get(_key()))
    if "failed" in message:
        return int(message["failed"] or EXIT_FAILED)
    if message["done"]:
        return EXIT_DONE
    folder, number = Path(message["attempt"]), processes.rank()
    quiet(folder / f"libraries-{number}.log")
    try:
        with signals.install_handlers(), Path(os.devnull).open("w") as nowhere:
            start, progress = None if message["start"] is None else Path(message["start"]), Progress(None, nowhere)
            grpo.train_from(recipe, run, progress, grpo.prepare_worker(recipe, run, progress, start))
        processes.write_outcome(folder, processes.Outcome(number, EXIT_DONE))
    except BaseException as error:
        processes.write_outcome(folder, processes.outcome_of(error))
        raise
    return EXIT_DONE


def _store() -> Any:
    """The store that torchrun's agent on the first node keeps for all of them."""
    from torch.distributed import TCPStore

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=WAIT)


def _key() -> str:
    return f"openrs/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # libraries' exit handlers may wait for processes that are gone

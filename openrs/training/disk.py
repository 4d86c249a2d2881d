"""Disk space: planned before the first step, and a checkpoint that does not fit leaves everything as it was."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openrs.config.schema import Recipe
from openrs.errors import RunFailure, UserError
from openrs.run import checkpoints
from openrs.run.directory import Run
from openrs.run.disk_faults import explained, fault_behind
from openrs.run.units import format_bytes

SLOWEST = 20e6  # bytes a second: less than half of the slowest volume that we know of (a network file system)


def slowest(size: float) -> float:
    """Seconds in which a working disk has written, or read, so many bytes."""
    return size / SLOWEST


def refuse_small_disk(recipe: Recipe, run: Run) -> None:
    """Raise UserError when the disk cannot hold the run at its fullest, with what is there of it counted in.

    A model whose sizes the planner cannot tell is let through: then the first checkpoint shows it.
    """
    from openrs.planner import gpus, memory
    from openrs.planner.workload import workload_of

    try:
        plan = memory.disk(workload_of(recipe, gpus.find(recipe.hardware.gpu)))
    except UserError:
        return
    there = sum(path.stat().st_size for path in run.checkpoints.rglob("*") if path.is_file())
    missing, free = plan.run - there, shutil.disk_usage(run.path).free
    if missing > free:
        raise UserError(
            f"the disk of {run.path} has {format_bytes(free)} free; the run needs {format_bytes(missing)} more",
            f"a checkpoint is {format_bytes(plan.checkpoint)}, and the recipe keeps several",
            "make room, give a --run on a larger disk, or keep fewer (training.keep_last, training.keep_every)",
        )


@contextmanager
def cleanup_on_disk_fault(staging: Path, step: int) -> Iterator[None]:
    """Turn a full or broken disk in the block, which writes a checkpoint into `staging`, into RunFailure, and give its
    room back."""
    try:
        yield
    except Exception as error:
        if fault_behind(error) is None:
            raise
        folder = staging.parent.parent
        there = checkpoints.list_complete(folder)
        written = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
        needed = max([written, *(checkpoints.bytes_of(place) for place in there)])
        failure = explained(error, folder, "resumes from what is complete", needed=needed, held=written)
        assert failure is not None
        shutil.rmtree(staging, ignore_errors=True)
        kept = f"{there[-1].name} is complete and untouched" if there else "no checkpoint was complete before it"
        what = f"the checkpoint of step {step} could not be written: {failure.what}"
        raise RunFailure(what, f"{failure.why}; {kept}", failure.fix) from error

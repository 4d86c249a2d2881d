"""Room on the disk: planned before the first step, and a checkpoint that finds none leaves everything as it was."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openrs.config.schema import Recipe
from openrs.errors import RunFailure, UserError
from openrs.run import checkpoints
from openrs.run.directory import Run
from openrs.run.files import NO_ROOM

# What safetensors (Rust), torch's zip writer and tokenizers say when a write fails for want of room.
WORDS = ("No space left on device", "os error 28", "Disk quota exceeded", "file write failed", "unexpected pos")


def refuse_small_disk(recipe: Recipe, run: Run) -> None:
    """Raise UserError when the disk cannot hold the run at its fullest, with what is there of it counted in.

    A model whose sizes the planner cannot tell is let through: then the first checkpoint shows it.
    """
    from openrs.planner import gpus, memory
    from openrs.planner.workload import job_of

    try:
        plan = memory.disk(job_of(recipe, gpus.find(recipe.hardware.gpu)))
    except UserError:
        return
    there = sum(path.stat().st_size for path in run.checkpoints.rglob("*") if path.is_file())
    missing, free = plan.run - there, shutil.disk_usage(run.path).free
    if missing > free:
        raise UserError(
            f"the disk of {run.path} has {size(free)} free; the run needs {size(missing)} more",
            f"a checkpoint is {size(plan.checkpoint)}, and the recipe keeps several",
            "make room, give a --run on a larger disk, or keep fewer (training.keep_last, training.keep_every)",
        )


@contextmanager
def cleanup_on_disk_full(staging: Path, step: int) -> Iterator[None]:
    """Turn a full disk in the block, which writes a checkpoint into `staging`, into RunFailure, and give its room back."""
    try:
        yield
    except Exception as error:
        if not _full(error):
            raise
        written = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
        shutil.rmtree(staging, ignore_errors=True)
        folder = staging.parent.parent
        there = checkpoints.list_complete(folder)
        needed = max([written, *(checkpoints.bytes_of(place) for place in there)])
        free = shutil.disk_usage(folder).free
        raise RunFailure(
            f"the disk is full: the checkpoint of step {step} needs about {size(needed)}, {size(free)} are free",
            f"{there[-1].name} is complete and untouched" if there else "no checkpoint was complete before it",
            "make room and give the same command again",
        ) from error


def _full(error: BaseException) -> bool:
    """Whether a library's exception, or one that it came from, means that nothing more could be written."""
    seen: BaseException | None = error
    while seen is not None:
        if (isinstance(seen, OSError) and seen.errno in NO_ROOM) or any(word in str(seen) for word in WORDS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def size(count: float) -> str:
    """'3.1 GB', '840 MB', '12 kB'."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}" if count < 100 * scale else f"{count / scale:.0f} {unit}"
    return f"{max(0.0, count) / 1e3:.0f} kB"

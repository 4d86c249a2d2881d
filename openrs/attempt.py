"""One launch on a run directory: the lock, the recipe check, the manifest's entry, the log, and how it ended."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from openrs import manifest
from openrs.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REFUSED, Interrupted, Refusal
from openrs.libraries import quiet
from openrs.recipe import Recipe, diff
from openrs.rundir import Lock, Run
from openrs.training.progress import Progress


@contextmanager
def attempt(recipe: Recipe, run: Run, command: Sequence[str] | None = None) -> Iterator[Progress]:
    """Hold the run while the block works in it; the manifest then says with which exit code and why it ended.

    Raises Refusal when another process holds the run, or when the run was made with another recipe.
    """
    with Lock(run):
        refuse_another_recipe(recipe, run)
        number = manifest.begin(recipe, run, command or sys.argv)
        folder = run.path / "attempts" / f"{number:02d}"
        quiet(folder / "libraries.log")
        progress = Progress(folder / "log")
        code, reason = EXIT_FAILED, "stopped from outside"
        try:
            yield progress
            code, reason = EXIT_DONE, "done"
        except Refusal as refusal:
            code, reason = EXIT_REFUSED, str(refusal)
            raise
        except (Interrupted, KeyboardInterrupt) as interrupted:
            code, reason = EXIT_INTERRUPTED, str(interrupted) or "Ctrl-C"
            raise
        except BaseException as error:
            code, reason = EXIT_FAILED, f"{type(error).__name__}: {error}"
            raise
        finally:
            progress.note(f"ended with exit code {code}: {reason}")
            progress.close()
            manifest.end(run, code, reason)


def refuse_another_recipe(recipe: Recipe, run: Run) -> None:
    """A run directory holds one experiment: going on with other settings would mix two."""
    before = manifest.recipe_of(run)
    if before is None or before.hash == recipe.hash:
        return
    changes = "\n".join(f"    {key}: {old} -> {new}" for key, old, new in diff(before, recipe))
    raise Refusal(
        f"{run.path} was made with another recipe:\n{changes}",
        "going on would mix two experiments in one run",
        "give another --run, or the recipe that the run has (its recipe.yaml)",
    )

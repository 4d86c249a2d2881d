"""One launch on a run directory: the lock, the recipe check, the manifest's entry, the log, and how it ended."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from openrs.config.load import diff
from openrs.config.schema import Recipe
from openrs.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, ExplainedError, Interrupted
from openrs.run import manifest, signals
from openrs.run.directory import Lock, Run, refuse_no_place_for_a_run
from openrs.run.disk_faults import explained
from openrs.run.libraries import quiet
from openrs.run.progress import Progress

# Settings that cannot change the weights of any step: they may differ between attempts of one run, and each attempt
# records those that do. (The schedule spans grpo.max_steps, wherever training.stop_after ends it.) A name with a dot at
# its end stands for all below it.
MUTABLE_KEYS = (
    "training.stop_after",
    "training.max_hours",
    "training.must_save_by",
    "training.keep_last",
    "training.keep_every",
    "training.old_weights_only",
    "training.completions_every",
    "training.completions_kept",
    "training.watchdog_factor",
    "training.watchdog_least",
    "training.trackers",
    "monitors.",
    "hardware.price_per_gpu_hour",
    "grpo.vllm_server_timeout",
    "grpo.ddp_timeout",
)


@contextmanager
def attempt(
    recipe: Recipe, run: Run, command: Sequence[str] | None = None, *, accept_changes: bool = False
) -> Iterator[Progress]:
    """Hold the run while the block works in it; the manifest then says with which exit code and why it ended.

    SIGTERM and Ctrl-C end the block as Interrupted. Raises UserError when another process holds the run, or when the
    run was made with another recipe (with `accept_changes` the manifest's attempt lists the changes instead), and
    RunFailure for a disk that fails.
    """
    refuse_no_place_for_a_run(run)
    with Lock(run), signals.install_handlers():
        adjusted, changes = changed_settings(recipe, run)
        if changes and not accept_changes:
            raise manifest.would_mix(
                f"{run.path} was made with another recipe",
                changes,
                "give another --run, or the recipe that the run has (its recipe.yaml)",
            )
        for left in run.path.glob(".*.part"):  # of a write that a kill cut short
            if left.is_symlink() or left.is_file():
                left.unlink()
        number = manifest.begin(recipe, run, command or sys.argv, changes if accept_changes else None, adjusted)
        folder = run.path / "attempts" / f"{number:02d}"
        quiet(folder / "libraries.log")
        progress = Progress(folder / "log")
        code, reason = EXIT_FAILED, "stopped from outside"
        try:
            yield progress
            code, reason = EXIT_DONE, "done"
        except ExplainedError as error:
            code, reason = error.exit_code, str(error)
            raise
        except (Interrupted, KeyboardInterrupt) as interrupted:
            code, reason = EXIT_INTERRUPTED, str(interrupted) or "Ctrl-C"
            raise
        except BaseException as error:
            failure = explained(error, run.path, "resumes from what is complete")
            if failure is None:
                code, reason = EXIT_FAILED, f"{type(error).__name__}: {error}"
                raise
            code, reason = failure.exit_code, str(failure)
            raise failure from None
        finally:
            with contextlib.suppress(OSError):  # on a full disk the reason above is what must come out
                progress.note(f"ended with exit code {code}: {reason}")
            with contextlib.suppress(OSError):
                progress.close()
            with contextlib.suppress(OSError):
                manifest.end(run, code, reason)


def changed_settings(recipe: Recipe, run: Run) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Settings that differ from those that the run was made with (key, was, now): those that may, and the others. Both
    empty for a new run."""
    before = manifest.recipe_of(run)
    if before is None or not manifest.has_results(run):
        return [], []
    changes: list[dict[str, object]] = [{"setting": key, "was": a, "now": b} for key, a, b in diff(before, recipe)]
    free = [change for change in changes if is_mutable(str(change["setting"]))]
    return free, [change for change in changes if change not in free]


def is_mutable(key: str) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in MUTABLE_KEYS)

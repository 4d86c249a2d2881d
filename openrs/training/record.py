"""What a training run leaves behind: metrics.jsonl (one line a step, the source of truth) and completions."""

import json
import math
from typing import Any

from transformers import TrainerCallback

from openrs.config.schema import Recipe
from openrs.run.checkpoints import step_name
from openrs.run.confined import make_folder, replacing
from openrs.run.directory import Run
from openrs.run.files import Journal, write_text
from openrs.run.progress import Progress
from openrs.training.tracking import Mirrors
from openrs.training.trainer import Trainer

# TRL's names -> the words on the progress line.
SHOWN = {"reward": "reward", "accuracy": "accuracy", "completions/mean_length": "length", "kl": "KL"}


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes the run's records from the main process; on the others it does nothing."""

    def __init__(self, trainer: Trainer, recipe: Recipe, run: Run, progress: Progress) -> None:
        self._trainer, self._recipe, self._run, self._progress = trainer, recipe, run, progress
        self._last = recipe.last_step
        self._journal: Journal | None = None
        self._mirrors: Mirrors | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            rewind(self._run, state.global_step)
            self._journal = Journal(self._run.metrics)
            self._mirrors = Mirrors(self._run, self._recipe.training.trackers, self._progress.say)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs or self._journal is None:  # the last call sums up the whole run
            return
        row = {"step": state.global_step, **{name: finite(value) for name, value in logs.items()}}
        row["problems"] = self._trainer.take_problems()
        self._journal.append(row)
        self._journal.sync()  # a checkpoint that survives a power cut has all its lines
        if self._mirrors is not None:
            self._mirrors.write(row)
        self._progress.step(
            "step", state.global_step, self._last, {word: row.get(name) for name, word in SHOWN.items()}
        )
        if state.global_step % self._recipe.training.completions_every == 0:
            self._save_completions(state.global_step)

    def close(self) -> None:
        """However training ended: what is open is closed."""
        if self._journal is not None:
            self._journal.close()
        if self._mirrors is not None:
            self._mirrors.close()

    def _save_completions(self, step: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kept = self._recipe.training.completions_kept
        columns = {name: values[:kept] for name, values in self._trainer.completions().items()}
        if kept and columns["prompt"]:
            make_folder(self._run.completions)
            with replacing(self._run.completions / f"{step_name(step)}.parquet") as file:
                pq.write_table(pa.table(columns), file)


def finite(value: Any) -> Any:
    """JSON has no NaN: NaN and Inf are recorded as null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rewind(run: Run, step: int) -> None:
    """Leave in metrics.jsonl the lines of steps 1 to `step`: a resumed run does the later ones again, and each stands
    there once.

    Whatever else is there (later steps, lines that a power cut damaged) is kept in the newest attempt's folder.
    """
    if not run.metrics.is_file():
        return
    kept: list[bytes] = []
    again: list[bytes] = []
    for line in run.metrics.read_bytes().splitlines(keepends=True):
        (kept if line.endswith(b"\n") and _step(line) in range(1, step + 1) else again).append(line)
    if again:
        attempts = run.attempts()
        superseded = (attempts[-1] if attempts else run.path) / "superseded.jsonl"
        write_text(superseded, b"".join(again).decode("utf-8", "replace"))
        write_text(run.metrics, b"".join(kept).decode("utf-8"))


def _step(line: bytes) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None

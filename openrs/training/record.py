"""What a training run leaves behind: metrics.jsonl (one line a step, the source of truth) and completions."""

import json
from typing import Any

from transformers import TrainerCallback

from openrs.recipe import Recipe
from openrs.rundir import Journal, Run, read_jsonl, write_text
from openrs.training import checkpoints
from openrs.training.progress import Progress
from openrs.training.trainer import Trainer, finite

# TRL's names -> the words on the progress line.
SHOWN = {"reward": "reward", "accuracy": "accuracy", "completions/mean_length": "length", "kl": "KL"}


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Writes the run's records from the main process; on the others it only ends the run at the right step."""

    def __init__(self, trainer: Trainer, recipe: Recipe, run: Run, progress: Progress) -> None:
        self._trainer, self._recipe, self._run, self._progress = trainer, recipe, run, progress
        self._last = recipe.training.stop_after or recipe.grpo["max_steps"]
        self._journal: Journal | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            rewind(self._run, state.global_step)
            self._journal = Journal(self._run.metrics)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs or self._journal is None:  # the last call sums up the whole run
            return
        row = {"step": state.global_step, **{name: finite(value) for name, value in logs.items()}}
        row["problems"] = self._trainer.take_problems()
        self._journal.append(row)
        self._progress.step(
            "step", state.global_step, self._last, {word: row.get(name) for name, word in SHOWN.items()}
        )
        if state.global_step % self._recipe.training.completions_every == 0:
            self._save_completions(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= self._last:
            control.should_training_stop = control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._progress.note(f"checkpoint of step {state.global_step} is complete")
            checkpoints.prune(self._run.checkpoints, self._recipe.training.keep_last, self._recipe.training.keep_every)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._journal is not None:
            self._journal.close()

    def _save_completions(self, step: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kept = self._recipe.training.completions_kept
        columns = {name: values[:kept] for name, values in self._trainer.completions().items()}
        if kept and columns["prompt"]:
            self._run.completions.mkdir(exist_ok=True)
            pq.write_table(pa.table(columns), self._run.completions / f"step-{step:06d}.parquet")


def rewind(run: Run, step: int) -> None:
    """Take lines after `step` out of metrics.jsonl: a resumed run does those steps again, and each stands there once.

    The lines taken out are kept in the newest attempt's folder.
    """
    rows = list(read_jsonl(run.metrics))
    again = [row for row in rows if row["step"] > step]
    if again:
        attempts = run.attempts()
        superseded = (attempts[-1] if attempts else run.path) / "superseded.jsonl"
        write_text(superseded, "".join(json.dumps(row) + "\n" for row in again))
        write_text(run.metrics, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))

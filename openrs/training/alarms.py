"""The monitors at work: after each step the main process looks, tells, and decides for all whether a rule ends it."""

from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from openrs.config.schema import Recipe
from openrs.errors import UserError
from openrs.run.directory import Run
from openrs.run.files import read_jsonl
from openrs.run.progress import Progress
from openrs.training.monitors import Monitors


class Alarms(TrainerCallback):  # type: ignore[misc]
    """Says what crossed a limit and adds it to the step's metrics as `alarms`. Add it before what records them."""

    def __init__(self, recipe: Recipe, run: Run, progress: Progress) -> None:
        self._monitors = Monitors(recipe.monitors)
        self._run, self._progress = run, progress
        self._stopped: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._monitors.replay(row for row in read_jsonl(self._run.metrics) if row["step"] <= state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:  # the last call sums up the whole run
            return
        if state.is_world_process_zero:
            found = self._monitors.update({**logs, "step": state.global_step})
            if found.raised:
                logs["alarms"] = found.raised
            for line in found.lines:
                self._progress.say(line)
            self._stopped = found.stop
        if self._monitors.can_stop:  # times differ between processes: one decides, and all hear it
            heard = [self._stopped]
            broadcast_object_list(heard)
            self._stopped = heard[0]
        if self._stopped is not None:
            control.should_training_stop = control.should_save = True

    def refuse_if_stopped(self, step: int) -> None:
        """After training, which ended at `step`. Raises UserError when a rule was the reason."""
        if self._stopped is not None:
            raise UserError(
                f"the recipe's own rule ended the training at step {step}: {self._stopped}",
                "going on would need another rule: a retry cannot help",
                f"the checkpoint of step {step} is there. Look at metrics.jsonl, then change the rule or the recipe",
            )

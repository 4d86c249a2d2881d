"""Monitors: what goes wrong in training like this shows in a metric first. An alarm once a crossing; stop rules if set.

Each monitor reads one metric of metrics.jsonl and compares it with the limits in the recipe's `monitors:`.
The defaults are where somebody should look, not where a run is lost: half of the completions cut at the cap; three
quarters of the groups without spread, which teach nothing; a KL of 0.5 nats a token (an independent re-run of the paper
saw 0 to step 150, then 1 to 1.5, and 23 at step 250; the demo stays under 0.3); one token whose reference probability
is e^4.6 times the policy's (k3 of 100); one letter in twenty from another script; one completion in fifty judged
against a gold that can't be read; any cosine wrap, where a longer answer pays more again; half of the gap at which the
canary ends the run.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from openrs.config.schema import MonitorsConfig, Recipe, Watch
from openrs.errors import UserError
from openrs.run.directory import Run
from openrs.run.files import step_rows
from openrs.run.progress import Progress

# Monitor -> the metric that it reads, and what that is. All of them are in metrics.jsonl.
METRICS = {
    "capped": ("completions/clipped_ratio", "share of completions cut at the cap"),
    "no_signal": ("frac_reward_zero_std", "share of groups whose rewards are all equal: they teach nothing"),
    "kl": ("kl", "mean KL to the reference, nats a token"),
    "kl_max": ("kl/max", "largest KL (k3) of one token"),
    "length": ("completions/mean_length", "mean completion length in tokens"),
    "non_latin": ("completions/non_latin", "share of non-Latin letters outside LaTeX"),
    "unparseable_references": (
        "judge/unparseable_share",
        "share of completions judged against an unparseable reference answer",
    ),
    "cosine_wraps": ("judge/wraps_share", "share of completions beyond twice max_len, where the cosine pays again"),
    "gap": ("canary/gap", "mean gap between vLLM's and the trainer's log-probabilities, nats"),
    "generation_seconds": ("time/generation", "seconds of a step spent generating"),
    "reward_seconds": ("time/reward", "seconds of a step spent judging"),
    "update_seconds": ("time/update", "seconds of a step spent on the update"),
    "sync_seconds": ("time/sync", "seconds of a step spent moving weights to vLLM"),
}


# --- alarms -----------------------------------------------------------------------------------------------------------


class MonitorResult(NamedTuple):
    """Of one step: monitors that crossed a limit, lines for the log, and why the run has to end, if it has to."""

    raised: list[str]
    lines: list[str]
    stop: str | None


class Monitors:
    """Compares each step's metrics with the limits. A monitor that stays beyond its limit is logged once."""

    def __init__(self, settings: MonitorsConfig) -> None:
        self._watches: dict[str, Watch] = {name: getattr(settings, name) for name in METRICS}
        self._beyond: dict[tuple[str, str], int] = defaultdict(int)  # (monitor, limit) -> steps in a row

    @property
    def can_stop(self) -> bool:
        """Whether any rule of the recipe may end the run."""
        return any(side.startswith("stop_") for watch in self._watches.values() for _, side in _limits(watch))

    def update(self, row: Mapping[str, Any]) -> MonitorResult:
        """One step's metrics. A metric that is missing or null leaves its monitor as it was."""
        raised, lines, stop = [], [], None
        for name, watch in self._watches.items():
            metric, words = METRICS[name]
            value = row.get(metric)
            if not isinstance(value, int | float):
                continue
            for limit, side in _limits(watch):
                key = (name, side)
                before = self._beyond[key]
                beyond = value > limit if side.endswith("above") else value < limit
                self._beyond[key] = before + 1 if beyond else 0
                text = f"{metric} {value:.4g} is {side.removeprefix('stop_')} {limit:g} ({words})"
                if side.startswith("stop_"):
                    if self._beyond[key] >= watch.steps and stop is None:
                        stop = f"monitors.{name}.{side}: {text}, for {watch.steps} steps"
                elif self._beyond[key] == watch.steps:
                    raised.append(name)
                    lines.append(f"alarm at step {row['step']}: {text}")
                elif not beyond and before >= watch.steps:
                    lines.append(f"step {row['step']}: {metric} {value:.4g} is no longer {side} {limit:g}")
        return MonitorResult(raised, lines, stop)


def _limits(watch: Watch) -> Sequence[tuple[float, str]]:
    sides = ("above", "below", "stop_above", "stop_below")
    return [(limit, side) for side in sides if (limit := getattr(watch, side)) is not None]


# --- in training ------------------------------------------------------------------------------------------------------


class Alarms(TrainerCallback):  # type: ignore[misc]
    """Logs what crossed a limit and adds it to the step's metrics as `alarms`. Add it before what records them.

    The main process compares, and decides for all whether a rule ends the run.
    """

    def __init__(self, recipe: Recipe, run: Run, progress: Progress) -> None:
        self._monitors = Monitors(recipe.monitors)
        self._run, self._progress = run, progress
        self._stopped: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            for row in step_rows(self._run.metrics):
                if row["step"] <= state.global_step:  # so that an old alarm is not logged again
                    self._monitors.update(row)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:  # the last call sums up the whole run
            return
        if state.is_world_process_zero:
            result = self._monitors.update({**logs, "step": state.global_step})
            if result.raised:
                logs["alarms"] = result.raised
            for line in result.lines:
                self._progress.say(line)
            self._stopped = result.stop
        if self._monitors.can_stop:  # times differ between processes: one decides for all
            stopped = [self._stopped]
            broadcast_object_list(stopped)
            self._stopped = stopped[0]
        if self._stopped is not None:
            control.should_training_stop = control.should_save = True

    def refuse_if_stopped(self, step: int) -> None:
        """After training, which ended at `step`. Raises UserError when a rule was the reason."""
        if self._stopped is not None:
            raise UserError(
                f"the recipe's own rule ended the training at step {step}: {self._stopped}",
                "the same command would stop again: a retry cannot help",
                f"the checkpoint of step {step} is there. Look at metrics.jsonl, then change the rule or the recipe",
            )

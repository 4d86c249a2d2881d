"""Monitors: what goes wrong in training like this shows in a metric first. An alarm once a crossing; stop rules if set.

Each monitor reads one metric of metrics.jsonl and compares it with the limits in the recipe (`monitors:`, settings.py).
The defaults are where somebody should look, not where a run is lost: half of the completions cut at the cap; three
quarters of the groups without spread, which teach nothing; a KL of 0.5 nats a token (an independent re-run of the paper
saw 0 to step 150, then 1 to 1.5, and 23 at step 250; the demo stays under 0.3); one token whose reference probability
is e^4.6 times the policy's (k3 of 100); one letter in twenty from another script; one completion in fifty judged
against a gold that can't be read; any cosine wrap, where a longer answer pays more again; half of the gap at which the
canary ends the run.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openrs.config.schema import MonitorsConfig as Settings
from openrs.config.schema import Watch

# Monitor -> the metric that it reads, and what that is. All of them are in metrics.jsonl.
METRICS = {
    "capped": ("completions/clipped_ratio", "share of completions cut at the cap"),
    "no_signal": ("frac_reward_zero_std", "share of groups whose rewards are all equal: they teach nothing"),
    "kl": ("kl", "mean KL to the reference, nats a token"),
    "kl_max": ("kl/max", "largest KL (k3) of one token"),
    "length": ("completions/mean_length", "mean completion length in tokens"),
    "non_latin": ("completions/non_latin", "share of non-Latin letters outside LaTeX"),
    "unparseable_golds": ("judge/unparseable_share", "share of completions judged against an unparseable gold"),
    "cosine_wraps": ("judge/wraps_share", "share of completions beyond twice max_len, where the cosine pays again"),
    "gap": ("canary/gap", "mean gap between vLLM's and the trainer's log-probabilities, nats"),
    "generation_seconds": ("time/generation", "seconds of a step spent generating"),
    "reward_seconds": ("time/reward", "seconds of a step spent judging"),
    "update_seconds": ("time/update", "seconds of a step spent on the update"),
    "sync_seconds": ("time/sync", "seconds of a step spent moving weights to vLLM"),
}


# --- alarms -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MonitorResult:
    """What one step brought: monitors that crossed a limit, what to say of it, and why the run should end, if so."""

    raised: list[str]
    lines: list[str]
    stop: str | None


class Monitors:
    """Compares each step's metrics with the limits. A monitor that stays beyond its limit is told of once."""

    def __init__(self, settings: Settings) -> None:
        self._watches: dict[str, Watch] = {name: getattr(settings, name) for name in METRICS}
        self._beyond: dict[tuple[str, str], int] = defaultdict(int)  # (monitor, limit) -> steps in a row

    @property
    def can_stop(self) -> bool:
        """Whether any rule of the recipe may end the run."""
        return any(watch.stop_above is not None or watch.stop_below is not None for watch in self._watches.values())

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in the steps before a resume, so that an old alarm is not told of again."""
        for row in rows:
            self.update(row)

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
                told = f"{metric} {value:.4g} is {side.removeprefix('stop_')} {limit:g} ({words})"
                if side.startswith("stop_"):
                    if self._beyond[key] >= watch.steps and stop is None:
                        stop = f"monitors.{name}.{side}: {told}, for {watch.steps} steps"
                elif self._beyond[key] == watch.steps:
                    raised.append(name)
                    lines.append(f"alarm at step {row['step']}: {told}")
                elif not beyond and before >= watch.steps:
                    lines.append(f"step {row['step']}: {metric} {value:.4g} is no longer {side} {limit:g}")
        return MonitorResult(raised, lines, stop)


def _limits(watch: Watch) -> Sequence[tuple[float, str]]:
    sides = ("above", "below", "stop_above", "stop_below")
    return [(limit, side) for side in sides if (limit := getattr(watch, side)) is not None]


# --- letters ----------------------------------------------------------------------------------------------------------

"""`openrs plan --from RUN`: the assumptions replaced by what a run measured."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from openrs.config.load import load_resolved
from openrs.errors import UserError
from openrs.outside import read_shape
from openrs.planner import gpus
from openrs.planner.gpus import Gpu
from openrs.planner.times import ASSUMED, Assumptions, step_seconds
from openrs.planner.workload import workload_of
from openrs.run.directory import existing_run
from openrs.run.files import step_rows

WARM_UP = 2  # first steps that load kernels and fill caches


class Calibration(NamedTuple):
    """assumed: with the run's figures in it; gpu, data: what the run ran on; lines: what was calibration, in words."""

    assumed: Assumptions
    gpu: Gpu
    data: str
    steps: int
    lines: list[str]

    def on(self, gpu: Gpu, data: str) -> Assumptions:
        """The assumptions for planning on `gpu` with the problems of `data`.

        A CPU's speed says nothing of a GPU's, nor the other way round; other problems have answers of other lengths.
        """
        base = self.assumed if self.gpu.measured_only == gpu.measured_only else ASSUMED
        return replace(base, length=self.assumed.length if data == self.data else ASSUMED.length)


def calibrate(name: str) -> Calibration:
    """Read a run's metrics and turn its seconds into utilisations.

    Keys used: time/generation, time/reward, time/update, time/sync (seconds of a step), or only time/step or step_time;
    completions/mean_length (tokens). Medians, without the first steps. Raises UserError when no step has a time in it.
    """
    run = existing_run(name)
    rows = list(step_rows(run.metrics))
    if not rows:
        raise UserError(f"{run.metrics} has no steps yet", fix="plan from a run that has done at least one step")
    recipe = load_resolved(run.recipe)
    measured_gpu = _gpu_of(run.manifest, recipe.hardware.gpu)
    rows = rows[WARM_UP:] or rows
    workload = workload_of(recipe, measured_gpu)
    assumed, lines = _length(rows, workload.completion_cap)
    predicted = step_seconds(workload, assumed)
    if predicted is None:
        raise UserError(
            f"{run.path} ran on {measured_gpu.name}, whose figures are unknown",
            "utilisations are shares of a GPU's figures",
            f"plan from a run on one of {', '.join(gpus.known())}",
        )
    measured = {part: value for part in predicted if (value := _median(rows, f"time/{part}")) is not None}
    whole = _median(rows, "time/step") or _median(rows, "step_time")
    if not measured:
        if whole is None:
            raise UserError(
                f"{run.metrics} has no times in it",
                "time/generation, time/reward, time/update, time/sync and time/step are absent",
                "plan from a run made by openrs train",
            )
        factor = whole / sum(predicted.values())
        lines.append(f"only the whole step is known ({whole:.2f} s): every part scaled by {factor:.2f}")
        return Calibration(
            _scaled(assumed, dict.fromkeys(predicted, factor)), measured_gpu, recipe.data.source, len(rows), lines
        )
    factors = {}
    for part, seconds in predicted.items():
        if part in measured and seconds > 0:
            factors[part] = measured[part] / seconds
            lines.append(f"time/{part}: {measured[part]:.3g} s a step, {seconds:.3g} s were assumed")
        elif part != "checkpoint" and seconds > 0:
            lines.append(f"time/{part} is absent: assumed")
    assumed = _scaled(assumed, factors)
    again = step_seconds(workload, assumed)
    if (
        again is not None and again["sync"] > 0 and "sync" in factors
    ):  # what the link's share took up is not counted twice
        assumed = replace(assumed, sync=assumed.sync * max(measured["sync"], 1e-6) / again["sync"])
    return Calibration(assumed, measured_gpu, recipe.data.source, len(rows), lines)


def _gpu_of(manifest: Path, otherwise: str) -> Gpu:
    """The GPU that the run's manifest names (`NVIDIA A40, 46068 MiB, 580.65`), else the recipe's."""
    try:
        names = read_shape(manifest, {"machine": {"gpus": [str]}})["machine"]["gpus"]
        return gpus.find(names[0].partition(",")[0])
    except (UserError, IndexError):
        return gpus.find(otherwise)


def _length(rows: Sequence[Mapping[str, Any]], cap: int) -> tuple[Assumptions, list[str]]:
    length = _median(rows, "completions/mean_length")
    if length is None:
        return ASSUMED, ["completions/mean_length is absent: assumed"]
    share = min(1.0, max(length, 1.0) / cap)
    return replace(ASSUMED, length=share), [f"completions/mean_length: {length:.0f} of {cap} tokens"]


def _median(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if isinstance(row.get(key), int | float) and row[key] >= 0]
    return statistics.median(values) if values else None


def _scaled(assumed: Assumptions, factors: Mapping[str, float]) -> Assumptions:
    """Every assumption of a part made slower by its factor: shares divided, seconds multiplied.

    A part that took no measurable time keeps what was assumed.
    """
    generation, update, reward = (factors.get(name, 0.0) or 1.0 for name in ("generation", "update", "reward"))
    return replace(
        assumed,
        decode_bandwidth=assumed.decode_bandwidth / generation,
        decode_overhead=assumed.decode_overhead * generation,
        layer_overhead=assumed.layer_overhead * generation,
        prefill_flops=assumed.prefill_flops / generation,
        train_flops=assumed.train_flops / update,
        link=assumed.link / update,
        reward_seconds=assumed.reward_seconds * reward,
    )


def summary(calibration: Calibration, gpu: Gpu, data: str) -> list[str]:
    """What `openrs plan --from` says above the plan, for a plan on `gpu` with the problems of `data`."""
    lines = [
        f"calibrated on {calibration.steps} steps on {calibration.gpu.name}:",
        *(f"  {line}" for line in calibration.lines),
    ]
    if calibration.gpu.measured_only != gpu.measured_only:
        lines.append(f"  its times are not taken over: {calibration.gpu.name} says nothing of {gpu.name}")
    if calibration.data != data:
        lines.append("  its lengths are not taken over: it had other problems")
    return lines

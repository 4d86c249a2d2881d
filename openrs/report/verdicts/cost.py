"""The cost ledger: where wall-clock and GPU seconds of a run went, what that is in dollars, beside the paper's $42."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from openrs.report.evidence.collect import RunData
from openrs.report.evidence.values import below, jsonl_rows, mapping, number, text, whole

STEP_PHASES = ("generation", "reward", "sync", "update")
EVALUATION_PHASES = ("load", "generate", "score")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One launch. seconds: from its start to its end; None when neither is known.

    end_from: `manifest`, or `log` when the launch was killed (or goes on): then its log's last line is taken.
    """

    number: int
    started: str
    seconds: float | None
    exit_code: int | None
    reason: str
    end_from: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one run cost. phases: seconds of wall clock by what was done, in order; they sum to `seconds`.

    seconds: wall clock of all attempts. gpu_seconds: times the GPUs that the run held, idle or not. dollars: gpu hours
    times the price; None without GPUs or price.
    """

    attempts: tuple[Attempt, ...]
    phases: Mapping[str, float]
    seconds: float
    gpu: str
    gpus: int
    price: float | None
    price_from: str
    steps: int
    gain: float | None

    @property
    def gpu_seconds(self) -> float:
        return self.seconds * self.gpus

    @property
    def dollars(self) -> float | None:
        if self.price is None or not self.gpus or not self.seconds:
            return None
        return self.gpu_seconds / 3600 * self.price

    @property
    def training_seconds(self) -> float:
        """Wall clock without the evaluations: what the paper's 24 hours and $42 are about."""
        return self.seconds - sum(value for name, value in self.phases.items() if name.startswith("evaluation"))

    @property
    def training_dollars(self) -> float | None:
        return self.dollars * self.training_seconds / self.seconds if self.dollars is not None else None

    def seconds_within(self, spans: Sequence[tuple[float, float]]) -> float | None:
        """Wall clock of the launches that began in one of these spans (seconds since 1970); None without any."""
        began = [(_time(one.started), one.seconds) for one in self.attempts]
        found = [took or 0.0 for at, took in began if at is not None and any(a <= at < b for a, b in spans)]
        return sum(found) if found else None

    def as_json(self) -> dict[str, Any]:
        dollars, steps = self.dollars, self.steps
        gained = self.gain if self.gain is not None and self.gain > 0 else None
        return {
            "gpu": self.gpu or None,
            "gpus": self.gpus,
            "price_per_gpu_hour": self.price,
            "price_from": self.price_from,
            "seconds": self.seconds,
            "gpu_seconds": self.gpu_seconds,
            "training_seconds": self.training_seconds,
            "dollars": dollars,
            "training_dollars": self.training_dollars,
            "dollars_per_step": self.training_dollars / steps if self.training_dollars is not None and steps else None,
            "points_gained": self.gain,
            "dollars_per_point": dollars / gained if dollars is not None and gained else None,
            "steps": steps,
            "phases": [
                {
                    "phase": name,
                    "seconds": value,
                    "gpu_seconds": value * self.gpus,
                    "dollars": dollars * value / self.seconds if dollars is not None else None,
                }
                for name, value in self.phases.items()
            ],
            "attempts": [
                {**asdict(one), "gpu_seconds": None if one.seconds is None else one.seconds * self.gpus}
                for one in self.attempts
            ],
        }


def ledger(run: RunData, price: float | None = None) -> Ledger | None:
    """The ledger of a run, or None when it has neither attempts nor timed steps. price: dollars per GPU-hour.

    Without `price` the recipe's hardware.price_per_gpu_hour is taken. A point is a percentage point of the mean over
    the benchmarks that the base and the last evaluated checkpoint share.
    """
    attempts = tuple(_attempt(run, entry) for entry in run.attempts)
    *parts, stepping = (
        sum(value for value in run.metrics.between(f"time/{name}") if value >= 0) for name in (*STEP_PHASES, "step")
    )
    phases = dict(zip(STEP_PHASES, parts, strict=True))
    between = stepping - sum(parts)
    phases["between steps"] = between if between > stepping / 100 else 0.0
    phases["steps done again"] = _done_again(run)
    for one in run.evaluations:
        spent = sum(one.seconds.get(name, 0.0) for name in EVALUATION_PHASES)
        phases[f"evaluation of {one.label}"] = phases.get(f"evaluation of {one.label}", 0.0) + spent
    phases = {name: value for name, value in phases.items() if value > 0}
    measured = sum(phases.values())
    wall = sum(one.seconds for one in attempts if one.seconds is not None)
    if not measured and not wall:
        return None
    if wall > measured:
        phases["start-up, checkpoints, the rest"] = wall - measured
    gpu, gpus = gpus_of(run)
    hardware = mapping(run.recipe, "hardware")
    listed = number(hardware.get("price_per_gpu_hour"))
    return Ledger(
        attempts=attempts,
        phases=phases,
        seconds=max(wall, measured),
        gpu=gpu,
        gpus=gpus,
        price=price if price is not None else listed,
        price_from="--price" if price is not None else "the recipe" if listed is not None else "nowhere",
        steps=len(run.metrics.steps),
        gain=points_gained(run),
    )


def gpus_of(run: RunData) -> tuple[str, int]:
    """Name, empty without one, and number of the GPUs that the run held: as nvidia-smi listed them, at most as many as
    the recipe asks for; else as the recipe has them."""
    listed = below(run.manifest, "machine", "gpus")
    asked = whole(below(run.recipe, "hardware", "gpus")) or 0
    if isinstance(listed, list) and listed and asked:
        return text(listed[0], 60).split(",")[0], min(len(listed), asked)
    name = text(below(run.recipe, "hardware", "gpu"), 60)
    return "" if name == "none" else name, asked


def points_gained(run: RunData) -> float | None:
    """Mean over shared benchmarks of the last evaluated checkpoint minus the base, in percentage points."""
    base, later = run.base, run.later
    shared = [name for name in base.scores if name in later[-1].scores] if base is not None and later else []
    if base is None or not shared:
        return None
    return 100 * sum(later[-1].scores[name].accuracy - base.scores[name].accuracy for name in shared) / len(shared)


def _attempt(run: RunData, entry: Mapping[str, Any]) -> Attempt:
    count = whole(entry.get("number")) or 0
    began, ended, source = _time(entry.get("started")), _time(entry.get("ended")), "manifest"
    log = run.path / "attempts" / f"{count:02d}" / "log"
    if ended is None and began is not None and log.is_file():
        ended, source = log.stat().st_mtime, "log"
    seconds = ended - began if began is not None and ended is not None and ended >= began else None
    return Attempt(
        number=count,
        started=text(entry.get("started"), 30),
        seconds=seconds,
        exit_code=whole(entry.get("exit_code")),
        reason=text(entry.get("reason"), 200),
        end_from="unknown" if seconds is None else source,
    )


def _time(value: Any) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def _done_again(run: RunData) -> float:
    """Seconds of steps that a resumed run did twice (attempts/NN/superseded.jsonl)."""
    files = sorted((run.path / "attempts").glob("*/superseded.jsonl"))
    rows = (row for path in files for row in jsonl_rows(path, run.notes))
    return sum(value for row in rows if (value := number(row.get("time/step"))) is not None and value > 0)

"""What a run directory holds, read without ever failing: what is missing, broken or left out is said in `notes`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrs.report.evidence.evaluations import LONGEST_TEXT, Change, Evaluated, Text, changes, evaluation, evaluations
from openrs.report.evidence.values import below, jsonl_rows, mapping, number, spread, text, tree_in, whole
from openrs.run.checkpoints import PLACE, step_of
from openrs.run.directory import Run

TEXTS = 36  # completions of the training kept for the page, from at most STEPS_WITH_TEXTS steps
STEPS_WITH_TEXTS = 12


@dataclass(frozen=True, slots=True)
class Metrics:
    """metrics.jsonl as columns. steps: strictly increasing. columns: name -> as many values, NaN where none is.

    The column `prompts` counts the distinct problems of a step. alarms: step and monitor (openrs/training/monitors.py).
    """

    steps: list[int]
    columns: dict[str, list[float]]
    alarms: list[tuple[int, str]] = field(default_factory=list)

    def has(self, name: str) -> bool:
        return any(not math.isnan(value) for value in self.columns.get(name, ()))

    def between(self, name: str, first: int = 0, last: float = math.inf) -> list[float]:
        """The known values of the steps from `first` to `last`, both included."""
        values = zip(self.steps, self.columns.get(name, ()), strict=False)
        return [value for step, value in values if first <= step <= last and not math.isnan(value)]


@dataclass(slots=True)
class RunData:
    """Everything the report knows of one run. notes: what is missing or broken, in words, in the order found."""

    name: str
    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=lambda: Metrics([], {}))
    evaluations: list[Evaluated] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def experiment(self) -> str | None:
        """exp1, exp2 or exp3 when the recipe says that it is one of the paper's."""
        found = below(self.recipe, "paper", "experiment")
        return found if isinstance(found, str) else None

    @property
    def seed(self) -> int | None:
        """The seed of the training."""
        found = whole(below(self.manifest, "seeds", "training"))
        return whole(below(self.recipe, "grpo", "seed")) if found is None else found

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The manifest's entries of every launch."""
        found = self.manifest.get("attempts")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    @property
    def planned(self) -> int | None:
        """Steps that the recipe asks for."""
        stop = whole(below(self.recipe, "training", "stop_after"))
        return stop or whole(below(self.recipe, "grpo", "max_steps"))

    @property
    def base(self) -> Evaluated | None:
        return next((one for one in self.evaluations if one.step == 0), None)

    @property
    def later(self) -> list[Evaluated]:
        """Evaluations of the run's own checkpoints, by step."""
        return [one for one in self.evaluations if one.step]

    @property
    def final(self) -> Evaluated | None:
        """The checkpoint that the recipe fixed before training: the paper's released step, else the last evaluated."""
        step = whole(below(self.recipe, "paper", "released_step"))
        scored = [one for one in self.later if one.scores]
        return next((one for one in scored if one.step == step), scored[-1] if scored else None)


def collect(run: Run) -> RunData:
    """Read whatever part of a run directory is there, or one evaluation's folder. Raises nothing for contents."""
    data = RunData(text(run.path.resolve().name, 120), run.path)
    if any((run.path / name).is_file() for name in ("scores.json", "samples.jsonl")):
        one = evaluation(run.path, data.notes)
        data.evaluations = [one] if one is not None else []
        return data
    data.evaluations = evaluations(run.path / "eval", data.notes)
    files = (run.manifest, run.recipe, run.metrics)
    data.recipe = mapping(tree_in(run.recipe, data.notes))
    data.changes = changes(data.base, data.final, run.path / "eval")
    if data.evaluations and not any(path.is_file() for path in files):
        data.notes.append("only evaluations are here: no training was recorded")
        return data
    data.notes += [f"{path.name} is missing" for path in files if not path.is_file()]
    data.manifest = mapping(tree_in(run.manifest, data.notes))
    data.notes += _references(mapping(data.manifest, "references"))
    data.metrics = _metrics(run.metrics, data.notes) if run.metrics.is_file() else data.metrics
    data.texts = _training_texts(run.completions, _weights(data.recipe), data.notes)
    data.checkpoints = sorted(step_of(path) for path in run.checkpoints.glob(PLACE))
    return data


def _references(counts: Mapping[str, Any]) -> list[str]:
    """What the check before the first step found among the reference answers (openrs/training/references.py)."""
    words = {
        "unreadable": "cannot be read",
        "pays_wrong": "are met by a wrong answer",
        "pays_zero": "are met by 0.0",
        "not_itself": "are not met by themselves",
        "without_box": "are solutions without a box",
        "other_number": "are solutions whose last number is not the one that was read",
    }
    found = [f"{number:,} {text}" for name, text in words.items() if (number := whole(counts.get(name)))]
    return [f"of {whole(counts.get('checked')) or 0:,} reference answers " + ", ".join(found)] if found else []


def _metrics(path: Path, notes: list[str]) -> Metrics:
    by_step: dict[int, dict[str, float]] = {}
    names: dict[str, None] = {}
    alarms: list[tuple[int, str]] = []
    for row in jsonl_rows(path, notes):
        step = whole(row.get("step"))
        if step is None:
            continue
        values = {text(name, 100): found for name, value in row.items() if (found := number(value)) is not None}
        if isinstance(row.get("problems"), list):
            values["prompts"] = float(len(row["problems"]))
        if isinstance(row.get("alarms"), list):
            alarms += [(step, text(name, 60)) for name in row["alarms"]]
        names |= dict.fromkeys(values)
        by_step[step] = values
    steps = sorted(by_step)
    if not steps:
        notes.append("metrics.jsonl has no step in it")
    columns = {name: [by_step[step].get(name, math.nan) for step in steps] for name in names if name != "step"}
    return Metrics(steps, columns, alarms)


# --- completions of the training --------------------------------------------------------------------------------------


def _weights(recipe: Mapping[str, Any]) -> dict[str, float]:
    """Weight of each reward function of the recipe."""
    functions = below(recipe, "rewards", "functions")
    entries = functions if isinstance(functions, list) else []
    return {
        text(below(entry, "name"), 60): weight
        for entry in entries
        if (weight := number(below(entry, "weight"))) is not None
    }


def _training_texts(folder: Path, weights: Mapping[str, float], notes: list[str]) -> list[Text]:
    """A few completions of each of a few saved steps, evenly spread from the first to the last."""
    files = sorted(folder.glob("step-*.parquet"))
    if not files:
        notes.append("no completions of the training were saved")
        return []
    chosen = spread(files, STEPS_WITH_TEXTS)
    found: list[Text] = []
    for path in chosen:
        try:
            rows = _spread_rows(path, TEXTS // len(chosen))
        except (OSError, ValueError) as error:  # pyarrow's errors for broken files are ValueErrors
            notes.append(f"completions/{path.name} cannot be read: {text(str(error), 120)}")
            continue
        found += [_training_text(path.stem, row, weights) for row in rows]
    return found


def _spread_rows(path: Path, count: int) -> list[dict[str, Any]]:
    """Rows evenly spread over the first hundred: neighbours are answers to one problem."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=100), None)
    if batch is None:
        return []
    taken = min(count, batch.num_rows)
    return [batch.slice(i * batch.num_rows // count, 1).to_pylist()[0] for i in range(taken)]


def _training_text(name: str, row: Mapping[str, Any], weights: Mapping[str, float]) -> Text:
    paid = {
        text(key[7:], 60): value for key in row if key.startswith("reward/") and (value := number(row[key])) is not None
    }
    facts = [(f"reward {text(key, 40)}", f"{value:.3g}") for key, value in paid.items()]
    advantage = number(row.get("advantage"))
    return Text(
        place="training",
        problem=text(row.get("id"), 120),
        gold=text(row.get("gold"), 300),
        prompt=text(row.get("prompt"), LONGEST_TEXT // 4),
        completion=text(row.get("completion"), LONGEST_TEXT),
        verdict=text(row.get("verdict"), 40) or "not judged",
        facts=(*facts, *([("advantage", f"{advantage:+.3f}")] if advantage is not None else [])),
        step=int(digits) if (digits := name.removeprefix("step-")).isdecimal() else None,
        reward=sum(weights.get(key, 1.0) * value for key, value in paid.items()) if paid else None,
    )

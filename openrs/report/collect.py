"""What a run directory holds, read without ever failing: what is missing, broken or left out is said in `notes`."""

import json
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from openrs.report.values import below, mapping, number, share, text, whole
from openrs.rundir import Run

TEXTS_OF_AN_EVALUATION = 24  # completions kept for the page, of each evaluation
TEXTS_OF_TRAINING = 36
LONGEST_TEXT = 12_000  # characters of a completion that are shown
LONGEST_LINE = 64 * 2**20  # bytes; a longer line of a journal is not read


@dataclass(frozen=True, slots=True)
class Metrics:
    """metrics.jsonl as columns. steps: strictly increasing. columns: name -> as many values, NaN where none is."""

    steps: list[int]
    columns: dict[str, list[float]]

    def has(self, name: str) -> bool:
        return any(not math.isnan(value) for value in self.columns.get(name, ()))


@dataclass(frozen=True, slots=True)
class Cell:
    """One judged sample of a problem, without its text. tokens 0 when unknown."""

    verdict: str
    answer: str
    tokens: int
    cut: bool


@dataclass(frozen=True, slots=True)
class Text:
    """One completion to look at. Everything in it is model output: hostile until escaped."""

    place: str
    problem: str
    gold: str
    prompt: str
    completion: str
    verdict: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One benchmark of one evaluation. accuracy: avg@k in [0, 1]. per_problem: id -> k zeros and ones; may be empty."""

    benchmark: str
    n: int
    k: int
    accuracy: float
    stderr: float | None
    interval: tuple[float, float] | None
    pass_at_k: Mapping[str, float]
    majority: float | None
    truncated: int | None
    mean_tokens: float | None
    verdicts: Mapping[str, int]
    per_problem: Mapping[str, list[int]]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model's evaluation: eval/<name>/. step: 0 for the base of a run, None when the model is of no run."""

    name: str
    model: str
    revision: str | None
    step: int | None
    protocol: Mapping[str, Any]
    inputs: Mapping[str, Any]
    scores: Mapping[str, Score]
    seconds: Mapping[str, float]
    cells: Mapping[str, Mapping[str, list[Cell]]]
    texts: tuple[Text, ...]
    samples: int

    @property
    def label(self) -> str:
        return "base" if self.step == 0 else f"step {self.step}" if self.step is not None else self.model


@dataclass(slots=True)
class RunData:
    """Everything the report knows of one run. notes: what is missing or broken, in words, in the order found."""

    name: str
    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=lambda: Metrics([], {}))
    evaluations: list[Evaluated] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def collect(run: Run) -> RunData:
    """Read whatever part of a run directory is there. Raises nothing for the contents of files."""
    data = RunData(run.path.resolve().name, run.path)
    data.manifest = mapping(_json(run.manifest, data.notes))
    data.recipe = _recipe(run.recipe, data.notes)
    data.metrics = _metrics(run.metrics, data.notes)
    data.evaluations = evaluations(run.path / "eval", data.notes)
    data.texts = _training_texts(run.completions, data.notes)
    found = [re.fullmatch(r"step-(\d+)", path.name) for path in run.checkpoints.glob("step-*")]
    data.checkpoints = sorted(int(match[1]) for match in found if match)
    return data


def evaluations(folder: Path, notes: list[str]) -> list[Evaluated]:
    """Every evaluation below eval/, the base first, then by step, then models of no run by name."""
    found = [_evaluation(path, notes) for path in sorted(folder.glob("*")) if path.is_dir()]
    kept = [evaluation for evaluation in found if evaluation is not None]
    return sorted(kept, key=lambda one: (one.step is None, one.step or 0, one.name))


def _json(path: Path, notes: list[str]) -> Any:
    if not path.is_file():
        notes.append(f"{path.name} is missing")
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.parent.name}/{path.name} cannot be read and is left out: {text(str(error), 120)}")
        return None


def _recipe(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        notes.append("recipe.yaml is missing")
        return {}
    try:
        return mapping(yaml.safe_load(path.read_text(encoding="utf-8", errors="replace")))
    except (OSError, yaml.YAMLError, RecursionError) as error:
        notes.append(f"recipe.yaml cannot be read and is left out: {text(str(error), 120)}")
        return {}


def rows(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file, in use or damaged: a line that is no object is left out, and how many is noted."""
    damaged = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if isinstance(row, dict):
                    yield row
                elif line.strip():
                    damaged += 1
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}")
    if damaged:
        notes.append(f"{path.parent.name}/{path.name}: {damaged} damaged or unfinished lines left out")


def _metrics(path: Path, notes: list[str]) -> Metrics:
    if not path.is_file():
        notes.append("metrics.jsonl is missing: no training was recorded")
        return Metrics([], {})
    by_step: dict[int, dict[str, float]] = {}
    names: dict[str, None] = {}
    for row in rows(path, notes):
        step = whole(row.get("step"))
        if step is None:
            continue
        values = {text(name, 100): found for name, value in row.items() if (found := number(value)) is not None}
        names |= dict.fromkeys(values)
        by_step[step] = values
    steps = sorted(by_step)
    if not steps:
        notes.append("metrics.jsonl has no step in it")
    columns = {name: [by_step[step].get(name, math.nan) for step in steps] for name in names if name != "step"}
    return Metrics(steps, columns)


# --- evaluations ------------------------------------------------------------------------------------------------------


def _evaluation(folder: Path, notes: list[str]) -> Evaluated | None:
    tree = _json(folder / "scores.json", []) if (folder / "scores.json").is_file() else None
    broken = (folder / "scores.json").is_file() and not isinstance(tree, dict)
    cells, texts, samples = _samples(folder, notes)
    where = f"eval/{folder.name}"
    if broken:
        notes.append(f"{where}/scores.json is broken and is left out")
    elif tree is None:
        had = f"{samples:,} samples are there, but no scores" if samples else "it holds no samples and no scores"
        notes.append(f"{where} is not finished: {had}")
    scores = {}
    for name, value in mapping(tree, "benchmarks").items():
        score = _score(str(name), value)
        if score is None:
            notes.append(f"{where}: {text(name, 40)} has no usable score")
        else:
            scores[score.benchmark] = score
    if tree is not None and not broken and not scores:
        notes.append(f"{where}/scores.json has no benchmark in it")
    if not scores and not samples:
        return None
    step = whole(below(tree, "model", "step"))
    match = re.fullmatch(r"step-(\d+)", folder.name)
    return Evaluated(
        name=folder.name,
        model=text(below(tree, "model", "name") or folder.name, 120),
        revision=text(below(tree, "model", "revision"), 60) or None,
        step=step if step is not None else int(match[1]) if match else None,
        protocol=mapping(tree, "protocol"),
        inputs=mapping(tree, "inputs"),
        scores=scores,
        seconds={key: found for key, value in mapping(tree, "seconds").items() if (found := number(value)) is not None},
        cells=cells,
        texts=texts,
        samples=samples,
    )


def _score(name: str, tree: Any) -> Score | None:
    accuracy, n = share(below(tree, "accuracy")), whole(below(tree, "n"))
    if accuracy is None or not n or n < 0:
        return None
    interval = below(tree, "interval")
    ends = [share(end) for end in interval] if isinstance(interval, list) else []
    per_problem = {
        text(problem, 120): [int(bool(one)) for one in marks if number(one) is not None]
        for problem, marks in mapping(tree, "per_problem").items()
        if isinstance(marks, list)
    }
    return Score(
        benchmark=text(name, 60),
        n=n,
        k=whole(below(tree, "k")) or 1,
        accuracy=accuracy,
        stderr=number(below(tree, "stderr")),
        interval=(ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None,
        pass_at_k={text(k, 8): found for k, v in mapping(tree, "pass_at_k").items() if (found := share(v)) is not None},
        majority=share(below(tree, "majority")),
        truncated=whole(below(tree, "truncated")),
        mean_tokens=number(below(tree, "mean_tokens")),
        verdicts={text(k, 40): found for k, v in mapping(tree, "verdicts").items() if (found := whole(v)) is not None},
        per_problem={problem: marks for problem, marks in per_problem.items() if marks},
    )


def _samples(folder: Path, notes: list[str]) -> tuple[dict[str, dict[str, list[Cell]]], tuple[Text, ...], int]:
    """Cells of every sample, and a few texts drawn evenly at random (with a fixed seed: a report can be made again)."""
    cells: dict[str, dict[str, list[Cell]]] = {}
    kept: list[Text] = []
    draw = random.Random(0)
    seen = 0
    if not (folder / "samples.jsonl").is_file():
        return cells, (), 0
    for row in rows(folder / "samples.jsonl", notes):
        benchmark, problem = text(row.get("benchmark"), 60), text(row.get("problem"), 120)
        cell = Cell(
            verdict=text(row.get("verdict"), 40) or "not judged",
            answer=text(row.get("answer"), 60),
            tokens=whole(row.get("tokens")) or 0,
            cut=row.get("finish") == "length",
        )
        cells.setdefault(benchmark, {}).setdefault(problem, []).append(cell)
        seen += 1
        place = len(kept) if len(kept) < TEXTS_OF_AN_EVALUATION else draw.randrange(seen)
        if place < TEXTS_OF_AN_EVALUATION:
            kept[place : place + 1] = [_evaluation_text(folder.name, benchmark, problem, row, cell)]
    return cells, tuple(kept), seen


def _evaluation_text(model: str, benchmark: str, problem: str, row: Mapping[str, Any], cell: Cell) -> Text:
    facts = (("tokens", f"{cell.tokens:,}"), ("answer", cell.answer), ("ended by", "the cap" if cell.cut else "itself"))
    return Text(
        place=f"evaluation of {model}",
        problem=f"{benchmark} / {problem} / sample {text(row.get('sample'), 8)}",
        gold="",
        prompt="",
        completion=text(row.get("text"), LONGEST_TEXT),
        verdict=cell.verdict,
        facts=facts,
    )


# --- completions of the training --------------------------------------------------------------------------------------


def _training_texts(folder: Path, notes: list[str]) -> list[Text]:
    """A few completions of each of a few saved steps, evenly spread from the first to the last."""
    files = sorted(folder.glob("step-*.parquet"))
    if not files:
        notes.append("no completions of the training were saved")
        return []
    places = min(12, len(files))
    chosen = [files[round(i * (len(files) - 1) / max(1, places - 1))] for i in range(places)]
    found: list[Text] = []
    for path in chosen:
        try:
            found += _of_step(path, max(1, TEXTS_OF_TRAINING // places))
        except (OSError, ValueError) as error:  # pyarrow's errors for broken files are ValueErrors
            notes.append(f"completions/{path.name} cannot be read: {text(str(error), 120)}")
    return found


def _of_step(path: Path, count: int) -> list[Text]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=count), None)
    return [_training_text(path.stem, row) for row in batch.to_pylist()] if batch is not None else []


def _training_text(step: str, row: Mapping[str, Any]) -> Text:
    rewards = [(name.removeprefix("reward/"), number(row[name])) for name in row if name.startswith("reward/")]
    facts = [(f"reward {text(name, 40)}", f"{value:.3g}") for name, value in rewards if value is not None]
    advantage = number(row.get("advantage"))
    return Text(
        place=f"training, step {step.removeprefix('step-').lstrip('0') or 0}",
        problem=text(row.get("id"), 120),
        gold=text(row.get("gold"), 300),
        prompt=text(row.get("prompt"), LONGEST_TEXT // 4),
        completion=text(row.get("completion"), LONGEST_TEXT),
        verdict=_verdict(row, dict(rewards)),
        facts=(*facts, *([("advantage", f"{advantage:+.3f}")] if advantage is not None else [])),
    )


def _verdict(row: Mapping[str, Any], rewards: Mapping[str, float | None]) -> str:
    """The judge's verdict, or what the reward that asks for a right answer says: both pay more than 0 only for one."""
    if isinstance(row.get("verdict"), str):
        return text(row["verdict"], 40)
    paid = next((rewards[name] for name in ("accuracy", "cosine") if rewards.get(name) is not None), None)
    return "not judged" if paid is None else "correct" if paid > 0 else "incorrect"

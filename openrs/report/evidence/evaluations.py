"""Evaluations in a run directory (eval/<model>/), read without failing: scores, samples by problem, a few texts; and
the problems that training changed, won and lost between the base and the final checkpoint."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openrs.evaluation.inputs import combined
from openrs.report.evidence.reference import TABLE_BENCHMARKS
from openrs.report.evidence.values import below, jsonl_rows, mapping, number, share, text, tree_in, whole

TEXTS = 24  # completions kept for the page, of each evaluation
MOST = 10**6  # problems of a benchmark, samples of a problem
LISTED = 200  # disagreements of a benchmark that are listed; scores.json has all
SHOWN = 6  # problems won, and as many lost, of each benchmark: those that changed most
MOST_CHANGES = 60  # problems of all benchmarks together
LONGEST_ANSWER = 6_000  # characters of an answer of theirs
LONGEST_TEXT = 12_000  # characters of a completion that are shown


@dataclass(frozen=True, slots=True)
class Cell:
    """One judged sample of a problem, without its text. tokens: 0 when unknown; cut: it reached the cap."""

    verdict: str
    answer: str
    tokens: int
    cut: bool
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """One completion to look at. Everything in it is model output: hostile until escaped.

    step: of the training, or the checkpoint evaluated. reward: the weighted sum that a training completion was paid.
    """

    place: str
    problem: str
    gold: str
    prompt: str
    completion: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    step: int | None = None
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One benchmark of one evaluation. accuracy: avg@k in [0, 1]. per_problem: id -> k zeros and ones; may be empty.

    fault: how its parts contradict each other, or "". Such a score is shown, and is no evidence. strict: the second
    opinion on the same samples; its rows: problem, sample, lighteval's verdict, strict. e_notation: references that
    lighteval misreads.
    """

    benchmark: str
    n: int
    k: int
    accuracy: float
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    interval_fixed: tuple[float, float] | None = None
    pass_at_k: Mapping[str, float] = field(default_factory=dict)
    majority: float | None = None
    truncated: int | None = None
    mean_tokens: float | None = None
    verdicts: Mapping[str, int] = field(default_factory=dict)
    per_problem: Mapping[str, list[int]] = field(default_factory=dict)
    fault: str = ""
    strict: Mapping[str, Any] | None = None
    e_notation: int = 0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model's evaluation: eval/<name>/. step: 0 for the base of a run, None when the model is of no run.

    tokens: benchmark of the paper -> lighteval's hash over everything generated, when there is one sample a problem.
    """

    name: str
    model: str
    revision: str | None
    step: int | None
    protocol: Mapping[str, Any]
    scores: Mapping[str, Score]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    cells: Mapping[str, Mapping[str, list[Cell]]] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[Text, ...] = ()
    samples: int = 0

    @property
    def label(self) -> str:
        return _label(self.step, self.model)

    def inputs_of(self, benchmark: str) -> str:
        """`verified`: every hash that was taken equals the authors'; `differs`; or `not proven`."""
        checks, changes = (self.inputs.get(key) for key in ("checks", "changes"))
        checks = [one for one in checks if below(one, "benchmark") == benchmark] if isinstance(checks, list) else []
        states = [below(one, "state") for one in checks]
        changed = isinstance(changes, list) and any(below(one, "benchmark") == benchmark for one in changes)
        if "differs" in states or changed:
            return "differs"
        return "verified" if "equal" in states else "not proven"


def _step_in(folder: str) -> int | None:
    """The checkpoint that a folder of eval/ is named after; 0 is the base."""
    match = re.fullmatch(r"step-(\d{1,12})", folder)
    return int(match[1]) if match else None


def _label(step: int | None, model: str) -> str:
    return "base" if step == 0 else f"step {step}" if step is not None else model


def comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """`same`, or the settings in which two protocols differ: then a difference of scores is not only the model's."""
    keys = ("temperature", "top_p", "max_tokens", "engine", "bos")
    return ", ".join(key for key in keys if a.get(key) != b.get(key)) or "same"


def evaluations(folder: Path, notes: list[str]) -> list[Evaluated]:
    """Every evaluation below eval/, the base first, then by step, then models of no run by name."""
    folders = [path for path in sorted(folder.glob("*")) if path.is_dir()]
    found = [one for path in folders if (one := evaluation(path, notes)) is not None]
    return sorted(found, key=lambda one: (one.step is None, one.step or 0, one.name))


def evaluation(folder: Path, notes: list[str]) -> Evaluated | None:
    """The evaluation in a folder with scores.json, samples.jsonl or both; None when neither holds anything."""
    where = f"eval/{folder.name}"
    written = (folder / "scores.json").is_file()
    tree = tree_in(folder / "scores.json", [])
    cells, tokens, texts, samples = _samples(folder, notes)
    if written and not isinstance(tree, dict):
        notes.append(f"{where}/scores.json is broken and is left out")
    elif tree is None:
        had = f"{samples:,} samples are there, but no scores" if samples else "it holds no samples and no scores"
        notes.append(f"{where} is not finished: {had}")
    scores = _scores(tree, where, notes)
    for name, score in scores.items():
        if said := _against(score, cells.get(name)):
            notes.append(f"{where}: {name} {said}")
            scores[name] = replace(score, fault=score.fault or f"it {said}")
    if not scores and not samples:
        return None
    step = whole(below(tree, "model", "step"))
    return Evaluated(
        name=text(folder.name, 120),
        model=text(below(tree, "model", "name") or folder.name, 120),
        revision=text(below(tree, "model", "revision"), 60) or None,
        step=step if step is not None else _step_in(folder.name),
        protocol=mapping(tree, "protocol"),
        scores=scores,
        inputs=mapping(tree, "inputs"),
        seconds={text(k, 40): found for k, v in mapping(tree, "seconds").items() if (found := number(v)) is not None},
        cells=cells,
        tokens=tokens,
        texts=texts,
        samples=samples,
    )


def _scores(tree: Any, where: str, notes: list[str]) -> dict[str, Score]:
    scores = {}
    for name, value in mapping(tree, "benchmarks").items():
        score = _score(text(name, 60), value)
        if score is None:
            notes.append(f"{where}: {text(name, 40)} has no usable score")
            continue
        if below(value, "per_problem") and not _consistent(score):
            notes.append(f"{where}: {score.benchmark}'s verdicts by problem don't give its score; they are left out")
            score = replace(score, per_problem={}, fault="its verdicts by problem don't give its n, k and score")
        scores[score.benchmark] = score
    if isinstance(tree, dict) and not scores:
        notes.append(f"{where}/scores.json has no score in it")
    return scores


def _score(name: str, tree: Any) -> Score | None:
    accuracy, n = share(below(tree, "accuracy")), whole(below(tree, "n"))
    k = whole(below(tree, "k")) or 1
    if accuracy is None or n is None or not 1 <= n <= MOST or not 1 <= k <= MOST:
        return None
    per_problem = {
        text(problem, 120): [int(mark) for mark in marks]
        for problem, marks in mapping(tree, "per_problem").items()
        if isinstance(marks, list) and marks and all(mark in (0, 1) for mark in marks)
    }
    return Score(
        benchmark=name,
        n=n,
        k=k,
        accuracy=accuracy,
        stderr=number(below(tree, "stderr")),
        interval=_interval(below(tree, "interval")),
        interval_fixed=_interval(below(tree, "interval_fixed")),
        pass_at_k={text(k, 8): found for k, v in mapping(tree, "pass_at_k").items() if (found := share(v)) is not None},
        majority=share(below(tree, "majority")),
        truncated=whole(below(tree, "truncated")),
        mean_tokens=number(below(tree, "mean_tokens")),
        verdicts={text(k, 40): found for k, v in mapping(tree, "verdicts").items() if (found := whole(v)) is not None},
        per_problem=per_problem,
        strict=_second(below(tree, "strict")),
        e_notation=whole(below(tree, "references", "e-notation")) or 0,
    )


def _second(tree: Any) -> dict[str, Any] | None:
    accuracy, disagree = share(below(tree, "accuracy")), whole(below(tree, "disagree"))
    if accuracy is None or disagree is None:
        return None
    found: dict[str, Any] = {"accuracy": accuracy, "disagree": disagree}
    found |= {name: whole(below(tree, name)) or 0 for name in ("only_lighteval", "only_strict")}
    listed = below(tree, "rows")
    found["rows"] = [
        (
            text(below(row, "problem"), 120),
            whole(below(row, "sample")) or 0,
            *(text(below(row, name), 40) for name in ("verdict", "strict")),
        )
        for row in (listed if isinstance(listed, list) else [])[:LISTED]
    ]
    return found


def _consistent(score: Score) -> bool:
    """n problems, k samples each, whose mean is the score."""
    rows = score.per_problem.values()
    shares = [sum(marks) / len(marks) for marks in rows]
    fits = len(rows) == score.n and all(len(marks) == score.k for marks in rows)
    return fits and abs(sum(shares) / score.n - score.accuracy) < 1e-6


def _against(score: Score, cells: Mapping[str, list[Cell]] | None) -> str:
    """What is wrong between a score and the samples that it was made from; empty when nothing is, or none are there.

    Later samples are those of an evaluation that goes on: its score is of the first k until it is whole.
    """
    samples = [cell for problem in (cells or {}).values() for cell in problem if cell.sample < score.k]
    if not samples:
        return ""
    if len(samples) != score.n * score.k:
        return f"has a score over {score.n * score.k:,} samples, but samples.jsonl has {len(samples):,}"
    right = sum(cell.verdict == "correct" for cell in samples) / len(samples)
    differs = abs(right - score.accuracy) > 1e-6
    return f"scores {100 * score.accuracy:.2f}, but samples.jsonl gives {100 * right:.2f}" if differs else ""


def _interval(value: Any) -> tuple[float, float] | None:
    low, high = (share(end) for end in value) if isinstance(value, list) and len(value) == 2 else (None, None)
    return (low, high) if low is not None and high is not None else None


# --- samples ----------------------------------------------------------------------------------------------------------


def _samples(
    folder: Path, notes: list[str]
) -> tuple[dict[str, dict[str, list[Cell]]], dict[str, str], tuple[Text, ...], int]:
    """Cells of every sample by benchmark and problem, hashes of the tokens, a few texts, the number of samples.

    Texts are drawn evenly at random from all that come by, with a fixed seed: the same report can be made again.
    """
    cells: dict[str, dict[str, list[Cell]]] = {}
    hashes: dict[str, list[str]] = {}
    texts: list[Text] = []
    done, rng = set[tuple[str, str, Any]](), random.Random(0)
    for row in jsonl_rows(folder / "samples.jsonl", notes):
        benchmark, problem = text(row.get("benchmark"), 60), text(row.get("problem"), 120)
        key = (benchmark, problem, whole(row.get("sample")))
        if key in done:
            continue
        done.add(key)
        cell = cell_of(row)
        cells.setdefault(benchmark, {}).setdefault(problem, []).append(cell)
        hashes.setdefault(benchmark, []).append(text(row.get("tokens_hash"), 20))
        place = len(texts) if len(texts) < TEXTS else rng.randrange(len(done))
        if place < TEXTS:
            texts[place : place + 1] = [text_of(folder.name, row, cell)]
    once = {
        benchmark: combined(hashes[benchmark])
        for benchmark, problems in cells.items()
        if benchmark in TABLE_BENCHMARKS  # only these have a log to compare with
        and all(len(one) == 1 for one in problems.values())
        and all(hashes[benchmark])
    }
    return cells, once, tuple(texts), len(done)


def cell_of(row: Mapping[str, Any]) -> Cell:
    verdict = text(row.get("verdict"), 40) or "not judged"
    tokens, sample = (whole(row.get(key)) or 0 for key in ("tokens", "sample"))
    return Cell(verdict, text(row.get("answer"), 60), tokens, row.get("finish") == "length", sample)


def text_of(model: str, row: Mapping[str, Any], cell: Cell, longest: int = LONGEST_TEXT) -> Text:
    facts = (("answer", cell.answer), ("tokens", f"{cell.tokens:,}"), ("ended", "at the cap" if cell.cut else "itself"))
    step = _step_in(model)
    names = (text(row.get("benchmark"), 60), text(row.get("problem"), 120), f"sample {text(row.get('sample'), 8)}")
    return Text(
        place=f"evaluation of {_label(step, text(model, 80))}",
        problem=", ".join(names),
        gold="",
        prompt="",
        completion=text(row.get("text"), longest),
        verdict=cell.verdict,
        facts=facts,
        step=step,
    )


# --- problems that training changed -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """A problem solved more often (won) or less often (lost) after training.

    before, after: shares of right samples. k: samples of each. texts: one completion of each that shows the change, a
    wrong one beside a right one; None where samples.jsonl does not have it.
    """

    benchmark: str
    problem: str
    before: float
    after: float
    k: tuple[int, int]
    texts: tuple[Text | None, Text | None] = (None, None)

    @property
    def won(self) -> bool:
        return self.after > self.before


def changes(base: Evaluated | None, final: Evaluated | None, folder: Path) -> list[Change]:
    """The largest changes, benchmark by benchmark, lost before won. folder: the run's eval/."""
    if base is None or final is None:
        return []
    names = [name for name in dict.fromkeys([*base.scores, *base.cells]) if name in {*final.scores, *final.cells}]
    largest = [c for name in names for c in _largest(name, cells_of(base, name), cells_of(final, name))][:MOST_CHANGES]
    olds = _texts(folder / base.name, {(c.benchmark, c.problem): not c.won for c in largest})
    news = _texts(folder / final.name, {(c.benchmark, c.problem): c.won for c in largest})
    keys = [(change.benchmark, change.problem) for change in largest]
    return [replace(change, texts=(olds.get(key), news.get(key))) for change, key in zip(largest, keys, strict=True)]


def cells_of(evaluated: Evaluated, benchmark: str) -> Mapping[str, Sequence[Cell]]:
    """Cells by problem: of samples.jsonl, else of the verdicts in scores.json (then without answers)."""
    if evaluated.cells.get(benchmark):
        return evaluated.cells[benchmark]
    score = evaluated.scores.get(benchmark)
    rows = score.per_problem if score else {}
    return {
        p: [Cell("correct" if mark else "incorrect", "", 0, cut=False) for mark in marks] for p, marks in rows.items()
    }


def share_solved(cells: Sequence[Cell]) -> float:
    return sum(cell.verdict == "correct" for cell in cells) / len(cells) if cells else 0.0


def _largest(name: str, before: Mapping[str, Sequence[Cell]], after: Mapping[str, Sequence[Cell]]) -> list[Change]:
    every = [
        Change(name, p, share_solved(before[p]), share_solved(after[p]), (len(before[p]), len(after[p])))
        for p in before
        if p in after
    ]
    moved = sorted((c for c in every if c.after != c.before), key=lambda c: -abs(c.after - c.before))
    return [*[c for c in moved if not c.won][:SHOWN], *[c for c in moved if c.won][:SHOWN]]


def _texts(folder: Path, wanted: Mapping[tuple[str, str], bool]) -> dict[tuple[str, str], Text]:
    """The first sample of each problem that is right, or wrong, as wanted; else its first sample."""
    kept: dict[tuple[str, str], Text] = {}
    for row in jsonl_rows(folder / "samples.jsonl", []) if wanted else ():
        key = (text(row.get("benchmark"), 60), text(row.get("problem"), 120))
        if key not in wanted:
            continue
        cell = cell_of(row)
        fits = (cell.verdict == "correct") == wanted[key]
        if key not in kept or (fits and (kept[key].verdict == "correct") != wanted[key]):
            kept[key] = text_of(folder.name, row, cell, LONGEST_ANSWER)
    return kept

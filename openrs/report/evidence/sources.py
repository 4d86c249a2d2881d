"""What a report is made from: runs, single evaluations, anybody's result files; and what they measured, in one list."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from openrs.errors import UserError
from openrs.report.evidence import reference
from openrs.report.evidence.collect import RunData, collect
from openrs.report.evidence.evaluations import MOST, Evaluated, comparable
from openrs.report.evidence.lighteval_logs import Reading, Result, read
from openrs.report.evidence.values import number
from openrs.run.confined import refuse_links_out
from openrs.run.directory import Run, run_at
from openrs.run.folders import DECLARATION, Kind, kind_of

# The paper's sampling (lighteval, one sample a problem). The seed is free.
PAPER_SAMPLING = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 32768}
RUN_PARTS = ("recipe.yaml", "metrics.jsonl", "eval", "scores.json", "samples.jsonl")  # of one that is not whole
Origin = Literal["released weights", "trained here", "authors' log", "a results file"]


@dataclass(frozen=True, slots=True)
class Sources:
    """runs: run directories and single evaluations. results: other people's result files, None when none were named."""

    runs: tuple[RunData, ...] = ()
    results: Reading | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One model's score on one benchmark, from one source, as evidence on the paper's claims.

    name: as the source has it. model: the reference's name (base, Open-RS1 ... 3), None for another. experiment, step:
    which training and checkpoint, when name, revision or tokens tell. metric: what the score is. rows: problem -> k
    zeros and ones; empty when only the mean is known. tokens: lighteval's hash over everything generated.
    excluded_reason: why it can't count, or "". note: what else there was of the same, and what became of it.
    """

    source: str
    origin: Origin
    name: str
    model: str | None
    benchmark: str
    metric: str
    n: int
    k: int
    accuracy: float
    protocol: Mapping[str, Any]
    inputs: str
    rows: Mapping[str, list[int]] = field(default_factory=dict)
    stderr: float | None = None
    experiment: str | None = None
    step: int | None = None
    tokens: str | None = None
    excluded_reason: str = ""
    note: str = ""


def gather(names: Sequence[str]) -> Sources:
    """Read every RUN, folder and file named. Raises UserError for a path that is not there or holds nothing of use."""
    runs: list[RunData] = []
    files: list[Path] = []
    for name in names:
        run = run_at(name)
        path = Path(name) if Path(name).exists() and not run.path.is_dir() else run.path
        if not (path.is_file() or path.is_dir()):
            raise UserError(
                f"there is no run and no file {path}",
                fix="give names of folders in runs/, or paths of runs or results",
            )
        kind = kind_of(path) if path.is_dir() else None
        if kind is Kind.RUN or (kind is None and any((path / part).exists() for part in RUN_PARTS)):
            refuse_links_out(path)
            runs.append(collect(Run(path)))
        elif path.is_file() or any(path.rglob("results_*.json")):
            files.append(path)
        elif kind is not None:
            raise UserError(
                f"{path} is a model (it has a {DECLARATION[kind]})",
                "a report is made from runs, evaluations and results",
                f"openrs evaluate {path}, then: openrs report evaluations",
            )
        else:  # an empty or strange folder is reported on as what it is: a run of which nothing is there
            runs.append(collect(Run(path)))
    reading = read(files) if files else None
    if reading is not None and not reading.results and not runs:
        why = "; ".join(f"{one.path}: {one.reason}" for one in reading.broken[:3])
        raise UserError(f"no results could be read: {why}", fix="give lighteval's results_*.json, or folders of them")
    return Sources(tuple(runs), reading)


def measured(sources: Sources) -> list[Measured]:
    """Every score that there is, with whose it is and why it can't count where it can't."""
    found = [one for run in sources.runs for evaluated in run.evaluations for one in _of_run(run, evaluated)]
    results = sources.results.results if sources.results else ()
    return found + [one for result in results if (one := _of_file(result)) is not None]


def _of_run(run: RunData, evaluated: Evaluated) -> list[Measured]:
    model, origin = whose(run, evaluated)
    return [
        Measured(
            source=f"{run.name}, {evaluated.label}",
            origin=origin,
            name=evaluated.model,
            model=model,
            experiment=run.experiment if evaluated.step else None,
            step=evaluated.step,
            benchmark=name,
            metric=f"avg@{score.k}",
            n=score.n,
            k=score.k,
            accuracy=score.accuracy,
            stderr=score.stderr,
            rows=score.per_problem,
            protocol=evaluated.protocol,
            inputs=evaluated.inputs_of(name),
            tokens=evaluated.tokens.get(name),
            excluded_reason=score.fault
            or _excluded_reason(name, score.n, evaluated.inputs_of(name), evaluated.protocol),
        )
        for name, score in evaluated.scores.items()
    ]


def whose(run: RunData, evaluated: Evaluated) -> tuple[str | None, Origin]:
    """The reference's model behind an evaluation of a run: the base, a checkpoint trained here, or released weights."""
    if evaluated.step == 0:
        model = run.recipe.get("model")
        name, revision = (model.get("name"), model.get("revision")) if isinstance(model, dict) else (None, None)
        return reference.model_named(str(name or ""), str(revision or "")), "released weights"
    if evaluated.step is not None:
        return reference.released_from(run.experiment, evaluated.step), "trained here"
    return reference.model_named(evaluated.model, evaluated.revision), "released weights"


def _of_file(result: Result) -> Measured | None:
    if result.score is None or result.n is None or result.k is None or max(result.n, result.k) > MOST:
        return None
    logged = reference.log_of(result.hash_cont_tokens)
    inputs = result.inputs if result.inputs in ("verified", "differs") else "not proven"
    checkpoint = (logged.experiment, logged.step) if logged else reference.checkpoint_named(result.model)
    experiment, step = checkpoint or (None, None)
    unfit = "the authors' own log" if logged else ""
    if not is_mean(result.metric, result.k):
        unfit = f"{result.metric} is not a mean over samples"
    return Measured(
        source=Path(result.files[0]).parent.name + "/" + Path(result.files[0]).name,
        origin="authors' log" if logged else "a results file",
        name=result.model,
        model=logged.model if logged else reference.model_named(result.model),
        experiment=experiment,
        step=step,
        benchmark=result.benchmark,
        metric=result.metric,
        n=result.n,
        k=result.k,
        accuracy=result.score,
        stderr=result.stderr,
        protocol=result.sampling,
        inputs=inputs,
        tokens=result.hash_cont_tokens,
        excluded_reason=unfit or _excluded_reason(result.benchmark, result.n, inputs, result.sampling),
    )


def is_mean(metric: str, k: int) -> bool:
    """Whether a metric's score is the mean over problems of the share of right samples: then it is an accuracy.

    pass@k for k > 1 and majority@k are scores of other questions, and higher.
    """
    if re.fullmatch(r"extractive_match|(math_|gpqa_)?avg@.*|(math_|gpqa_)?pass@1(:\d+_samples)?", metric):
        return True
    return bool(re.fullmatch(r"pass@k:(k=1&n=\d+|n=\d+&k=1|k=1)", metric)) or (k == 1 and metric == "maj@1")


def _excluded_reason(benchmark: str, n: int, inputs: str, protocol: Mapping[str, Any]) -> str:
    problems = reference.tree()["problems"].get(benchmark)
    if problems is not None and n != problems:
        return f"it has {n} problems, the paper {problems}"
    if inputs == "differs":
        return "its inputs are not the paper's"
    unknown = [key for key in PAPER_SAMPLING if number(protocol.get(key)) is None]
    if unknown:
        return f"it does not tell its sampling ({', '.join(unknown)})"
    other = [f"{key} {protocol[key]}" for key in other_sampling(protocol)]
    return f"its sampling is not the paper's: {', '.join(other)}" if other else ""


def other_sampling(protocol: Mapping[str, Any]) -> list[str]:
    """In which settings it is not the paper's."""
    return [key for key, value in PAPER_SAMPLING.items() if number(protocol.get(key)) != value]


# --- several evaluations of one model on one benchmark ----------------------------------------------------------------


def pooled(measured: Sequence[Measured]) -> list[Measured]:
    """The same evidence with the draws of released weights pooled, in the order of their first source.

    The order in which files are named never decides. Different evaluation seeds under the same settings are more
    samples of the same thing and go together. The same seed again is the same draw: the one with most samples stands
    for it. Only what counts and has verdicts by problem is pooled; a model trained here is another model in
    each run.
    """
    groups: list[list[Measured]] = []
    for one in measured:
        same = (group for group in groups if _poolable(one) and _poolable(group[0]) and _same_question(group[0], one))
        if (group := next(same, None)) is None:
            groups.append([one])
        else:
            group.append(one)
    return [_together(group) if len(group) > 1 else group[0] for group in groups]


def _poolable(one: Measured) -> bool:
    return one.origin == "released weights" and one.model is not None and bool(one.rows) and not one.excluded_reason


def _same_question(a: Measured, b: Measured) -> bool:
    same = (a.model, a.benchmark, frozenset(a.rows)) == (b.model, b.benchmark, frozenset(b.rows))
    return same and comparable(a.protocol, b.protocol) == "same"


def _together(group: Sequence[Measured]) -> Measured:
    """One Measured of a group that asks one question: its seeds side by side."""
    by_seed: dict[str, list[Measured]] = {}
    for one in group:
        by_seed.setdefault(str(one.protocol.get("seed")), []).append(one)
    chosen = [min(same, key=lambda one: (-one.k, one.source)) for _, same in sorted(by_seed.items())]
    left = _names(one for one in group if not any(one is kept for kept in chosen))
    note = f"{left}: the same evaluation seed again, not counted twice" if left else ""
    if len(chosen) == 1:
        return replace(chosen[0], note=note)
    first = chosen[0]
    rows = {problem: [mark for one in chosen for mark in one.rows[problem]] for problem in first.rows}
    k = sum(one.k for one in chosen)
    seeds = f"{len(chosen)} evaluation seeds together"
    return replace(
        first,
        source=_names(chosen),
        k=k,
        accuracy=sum(one.accuracy * one.k for one in chosen) / k,
        stderr=None,
        rows=rows,
        inputs=first.inputs if len({one.inputs for one in chosen}) == 1 else "not proven",
        tokens=None,
        note=f"{seeds}; {note}" if note else seeds,
    )


def _names(group: Iterable[Measured]) -> str:
    return " + ".join(sorted(one.source for one in group))

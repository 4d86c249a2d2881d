"""An evaluation, whole: plan -> samples -> verdicts -> scores. One model load for all benchmarks and all samples.

Leaves in its folder: settings.json, samples.jsonl (the journal), scores.json, results_<time>.json in lighteval's form,
and the engines' logs.
"""

import json
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrs.evaluation.benchmarks import Benchmark
from openrs.evaluation.engine_pool import EnginePool
from openrs.evaluation.engines import load
from openrs.evaluation.plan import Plan, Target, keep_record, prepare
from openrs.evaluation.protocols import described
from openrs.evaluation.sampling import Engine, Key, Sample, Samples, Unit
from openrs.evaluation.scores import Rows, document_of, joined
from openrs.evaluation.shards import Shard, finish_shard, requests_of_shard
from openrs.recipe import Evaluation
from openrs.rewards.grading import Item, Judge, Rule
from openrs.rundir import Lock, Run, write_json
from openrs.training.progress import Progress, duration

# lighteval gives each reading and each comparison 5 s. The judge's own limit is over all of them, so it must be well
# above their sum for a slow answer to get lighteval's verdict; judging goes on beside the engines.
JUDGE_SECONDS = 30.0
AT_HAND = {"vllm": 288, "transformers": 2}  # units that an engine has at the same time (vllm_engine: AT_ONCE + AHEAD)


def evaluate(
    target: Target,
    settings: Evaluation,
    folder: Path,
    progress: Progress,
    judge: Judge,
    *,
    shard: Shard | None = None,
) -> dict[str, Any] | None:
    """Draw the samples that are missing, judge them, and write scores.json; returns its content.

    With a shard only its samples are drawn, into shards/ of the folder, and nothing is scored: returns None.
    Raises Refusal for unusable models, benchmarks and settings, and when `folder` holds an evaluation made otherwise;
    Failure when an engine dies.
    """
    plan = prepare(target, settings)
    progress.say(described(settings, plan.layout.engine, plan.record["protocol"]["bos"]))
    if plan.inputs.checks:
        progress.say(plan.inputs.verdict())
    if shard is not None:
        folder, plan = shard.folder(folder), requests_of_shard(plan, shard)
    with Lock(Run(folder)), Samples(folder / "samples.jsonl") as samples:
        keep_record(folder, plan.record)
        seconds, drawn = sample(plan, samples, folder, progress, judge)
        if shard is not None:
            finish_shard(folder, plan, seconds, drawn)
            return None
        known = read_scores(folder)
        if known is not None and not drawn and answers(known, plan.record):
            progress.say(f"{target.label} is evaluated: {folder / 'scores.json'}")
            return known
        document = document_of(plan.record, plan.problems, samples.rows, seconds, drawn)
        return write_scores(folder, plan.benchmarks, plan.record, document=document, rows=samples.rows, known=known)


def write_scores(
    folder: Path,
    benchmarks: Sequence[Benchmark],
    record: Mapping[str, Any],
    *,
    document: dict[str, Any],
    rows: Rows,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write lighteval's results file, and scores.json with what was `known` of other benchmarks in it; returns that."""
    from openrs.evaluation.lighteval_results import write_results

    write_results(folder, benchmarks, document, record, rows)
    whole = joined(known, document)
    write_json(folder / "scores.json", whole)
    return whole


def read_scores(folder: Path) -> dict[str, Any] | None:
    path = folder / "scores.json"
    try:
        scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return scores


def answers(scores: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether scores.json has what is asked now: these benchmarks, with this k, under this protocol."""
    there = {name: score.get("k") for name, score in scores.get("benchmarks", {}).items()}
    asked = all(there.get(name) == facts["k"] for name, facts in record["benchmarks"].items())
    return asked and scores.get("protocol") == record["protocol"]


def sample(
    plan: Plan, samples: Samples, folder: Path, progress: Progress, judge: Judge
) -> tuple[dict[str, float], int]:
    """Draw and judge what is missing. Returns the wall clock of loading, generating and scoring, and how many.

    Judging runs beside engines in their own processes; `score` is only what it took longer than they did.
    """
    seconds = {"load": 0.0, "generate": 0.0, "score": 0.0}
    missing = samples.missing(plan.units())
    before = len(samples.rows)
    if not missing:
        return seconds, 0
    began = time.monotonic()
    count = len(plan.layout.devices)
    of = f"{len(missing)} units of work" if before else f"{len(plan.requests)} completions"
    progress.say(f"loading {plan.target.label}: {of}, {count} {plan.layout.engine} engine{'s' if count > 1 else ''}")
    engine: Engine
    if plan.layout.here:
        engine = load(plan.engine())
    else:
        at_hand = min(AT_HAND[plan.layout.engine], -(-len(missing) // count))
        engine = EnginePool(plan.layout, plan.engine(), at_hand, folder)
    work = Work(plan, samples, judge, progress)
    waiting = deque(missing)
    try:
        start = time.monotonic()
        seconds["load"] = start - began
        progress.start(work.done)
        for batch in engine.generate(lambda: take(waiting)):
            work.judge_and_keep(batch)
        whole = time.monotonic() - start
        idle = work.seconds if not isinstance(engine, EnginePool) else time.monotonic() - engine.last
        seconds |= {"generate": whole - idle, "score": idle}
    finally:
        engine.close()
    drawn = len(samples.rows) - before
    told = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    progress.say(f"{drawn} samples drawn and judged ({told})")
    return seconds, drawn


def take(waiting: deque[Unit]) -> Unit | None:
    return waiting.popleft() if waiting else None


@dataclass(slots=True)
class Work:
    """What finished completions go through: the judge, the journal, the progress line."""

    plan: Plan
    samples: Samples
    judge: Judge
    progress: Progress
    wanted: set[Key] = field(init=False)
    rules: dict[str, Rule] = field(init=False)
    golds: dict[tuple[str, str], str] = field(init=False)
    done: int = field(init=False)
    right: int = field(init=False)
    cut: int = field(init=False)
    seconds: float = 0.0
    told: float = 0.0

    def __post_init__(self) -> None:
        self.wanted = {request.key for request in self.plan.requests}
        self.rules = {one.name: Rule(one.rule) for one in self.plan.benchmarks}
        self.golds = {(name, one.id): one.gold for name, rows in self.plan.problems.items() for one in rows}
        there = [row for key, row in self.samples.rows.items() if key in self.wanted]
        self.done, self.right = len(there), sum(row["verdict"] == "correct" for row in there)
        self.cut = sum(row["finish"] == "length" for row in there)

    def judge_and_keep(self, batch: Sequence[Sample]) -> None:
        """Judge what is new of a batch and append it; a unit that is drawn again brings samples that are there."""
        began = time.monotonic()
        new = [one for one in batch if one.key not in self.samples.rows]
        items = [Item(self.golds[one.benchmark, one.problem], one.text, self.rules[one.benchmark]) for one in new]
        for one, grade in zip(new, self.judge.grade(items), strict=True):
            self.samples.add(one, verdict=str(grade.verdict), answer=grade.answer)
            self.done, self.right = self.done + 1, self.right + (grade.verdict == "correct")
            self.cut += one.finish == "length"
        now = time.monotonic()
        self.seconds += now - began
        if now - self.told > (0.5 if sys.stdout.isatty() else 5) or self.done == len(self.wanted):
            self.told = now
            facts = {"correct": self.right / max(1, self.done), "cut off": self.cut / max(1, self.done)}
            self.progress.step(f"evaluate {self.plan.target.label}", self.done, len(self.wanted), facts)

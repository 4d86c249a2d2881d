"""An evaluation, whole: plan -> samples -> verdicts -> scores. One model load for all benchmarks and all samples.

Leaves in its folder: settings.json, samples.jsonl (the journal), scores.json, results_<time>.json in lighteval's form,
and the engines' logs.
"""

import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from openrs.config.schema import Evaluation
from openrs.evaluation.engine_pool import EnginePool
from openrs.evaluation.engines import layout_of, load
from openrs.evaluation.plan import EvalPlan, Target, keep_record, prepare
from openrs.evaluation.protocols import described
from openrs.evaluation.sampling import Engine, Samples
from openrs.evaluation.scores import build_scores, read_scores, write_scores
from openrs.evaluation.scoring import Referee, Scoring, text_of, thinks
from openrs.evaluation.shards import Shard, finish_shard, requests_of_shard
from openrs.rewards.grading import Judge
from openrs.run.directory import Lock, Run
from openrs.run.progress import Progress
from openrs.run.units import format_duration

# lighteval gives each reading and each comparison 5 s. The judge's own limit is over all of them, so it must be well
# above their sum for a slow answer to get lighteval's verdict; judging goes on beside the engines.
JUDGE_SECONDS = 30.0
# Batches that an engine has at the same time: more than it computes, so that it never waits for the next one.
MAX_IN_FLIGHT = {"vllm": 288, "transformers": 2}


def evaluate(
    target: Target,
    settings: Evaluation,
    folder: Path,
    progress: Progress,
    judge: Judge,
    *,
    shard: Shard | None = None,
    apart: bool = False,
) -> dict[str, Any] | None:
    """Draw the samples that are missing, judge them, and write scores.json; returns its content.

    With a shard only its samples are generated, into shards/ of the folder, and nothing is scored: None. Engines in
    processes of their own start at once and import while this one plans; `apart`: so does one that could run here.
    Raises UserError for unusable models, benchmarks and settings, and when `folder` holds an evaluation made otherwise;
    RunFailure when an engine dies.
    """
    layout = layout_of(settings)
    early = (apart or not layout.here) and read_scores(folder) is None
    with closing(EnginePool(layout)) if early else nullcontext() as pool:
        plan = prepare(target, settings, layout)
        for line in (described(plan.settings, plan.layout.engine, plan.record["protocol"]["bos"]), *plan.notes):
            progress.say(line)
        if plan.inputs.checks:
            progress.say(proof(plan))
        if shard is not None:
            folder, plan = shard.folder(folder), requests_of_shard(plan, shard)
        with Lock(Run(folder)), Samples(folder / "samples.jsonl") as samples:
            keep_record(folder, plan.record, kept=bool(samples.rows) or (folder / "scores.json").exists())
            judge_anew(plan, samples, judge, progress)
            seconds, drawn = sample(plan, samples, folder, progress, judge, pool=pool)
            if shard is not None:
                finish_shard(folder, plan, seconds, drawn)
                return None
            known = read_scores(folder)
            if known is not None and not drawn and answers(known, plan.record):
                progress.say(f"{plan.target.label} is evaluated: {folder / 'scores.json'}")
                return known
            document = build_scores(plan.record, plan.problems, samples.rows, seconds, drawn)
            return write_scores(folder, plan.benchmarks, plan.record, document=document, rows=samples.rows, known=known)


def proof(plan: EvalPlan) -> str:
    """The outcome of L0 in a line, and whether the tokens that are fed are those that it proved."""
    fed = plan.record["protocol"]["bos"]
    other = plan.inputs.proven and fed != plan.inputs.bos
    return plan.inputs.verdict() + (f"; here with {fed} (--protocol paper has both)" if other else "")


def answers(scores: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether scores.json has what is asked now: these benchmarks, with this k, under this protocol."""
    there = {name: score.get("k") for name, score in scores.get("benchmarks", {}).items()}
    asked = all(there.get(name) == facts["k"] for name, facts in record["benchmarks"].items())
    strict = all(score.get("strict") for score in scores["benchmarks"].values())  # older ones have no second opinion
    return asked and strict and scores.get("protocol") == record["protocol"]


def judge_anew(plan: EvalPlan, samples: Samples, judge: Judge, progress: Progress) -> None:
    """Give samples of an older journal their second opinion. Nothing is sampled again, and no `verdict` changes."""
    referee = Referee(judge, plan.benchmarks, plan.problems, thinks(plan.record, samples.rows.values()))
    old = [
        row for row in samples.rows.values() if "strict" not in row and referee.knows(row["benchmark"], row["problem"])
    ]
    if old:
        progress.say(f"asking the strict judge about {len(old)} samples of an older journal")
        opinions = referee.judge([text_of(row) for row in old])
        samples.set_verdicts({**row, **opinion, **row} for row, opinion in zip(old, opinions, strict=True))


def sample(
    plan: EvalPlan, samples: Samples, folder: Path, progress: Progress, judge: Judge, *, pool: EnginePool | None = None
) -> tuple[dict[str, float], int]:
    """Draw and judge what is missing. Returns the wall clock of loading, generating and scoring, and how many.

    Judging goes on beside the generation; `score` is how much longer it took. `pool`: engines that wait already.
    """
    missing = samples.missing(plan.batches())
    if not missing:
        return dict.fromkeys(("load", "generate", "score"), 0.0), 0
    before = len(samples.rows)
    began = time.monotonic()
    count = len(plan.layout.devices)
    of = f"{len(missing)} batches" if before else f"{len(plan.requests)} completions"
    progress.say(f"loading {plan.target.label}: {of}, {count} {plan.layout.engine} engine{'s' if count > 1 else ''}")
    judge.start()
    if pool is None and not plan.layout.here:
        pool = EnginePool(plan.layout)
    try:
        engine: Engine
        if pool is not None:
            engine = pool
            pool.load(plan.engine(), min(MAX_IN_FLIGHT[plan.layout.engine], -(-len(missing) // count)), folder)
        else:
            engine = load(plan.engine())
        loaded = time.monotonic()
        waiting = deque(missing)
        with closing(engine), Scoring(plan, samples, judge, progress, len(missing)) as scoring:
            for batch in engine.generate(lambda: waiting.popleft() if waiting else None, scoring.on_tokens):
                scoring.give(batch)
            generated = time.monotonic()
    finally:
        if pool is not None:
            pool.close()
    seconds = {"load": loaded - began, "generate": generated - loaded, "score": time.monotonic() - generated}
    drawn = len(samples.rows) - before
    phases = ", ".join(f"{name} {format_duration(value)}" for name, value in seconds.items())
    progress.say(f"{drawn} samples generated and judged ({phases})")
    return seconds, drawn

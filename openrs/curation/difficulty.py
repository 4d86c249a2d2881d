"""Rows shown to a model: its pass rate on them, or its opinion. Through the evaluator's engines, journal and judge.

Samples are kept in work/samples/<what was asked of whom>/, by the digest of a problem and its reference answer: another
stage before this one may change what is asked, and only what was never asked is generated. So may a kill, and shards on
several machines: each writes samples-I-of-N/ of its own, and whoever goes on reads all of them.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from openrs.config.schema import Evaluation, Prompt
from openrs.curation.references import reference_answer
from openrs.curation.rows import Out, Row
from openrs.curation.settings import Difficulty, Form, Sampling
from openrs.curation.stages import form
from openrs.curation.steps import Chain, Step
from openrs.curation.text import fingerprint
from openrs.data.tokenizer import ChatEncoder
from openrs.evaluation.benchmarks import Benchmark, EvalProblem
from openrs.evaluation.engines import layout_of
from openrs.evaluation.inputs import InputsReport
from openrs.evaluation.plan import EvalPlan, Target, fit_to_window, keep_record, record_of, refuse_long, requests_for
from openrs.evaluation.run import sample
from openrs.evaluation.sampling import Sample, Samples, key_of
from openrs.hub.models import context_of, local_model
from openrs.rewards.extraction import opens_thought
from openrs.rewards.grading import Grade, Item, Judge, Rule, Verdict
from openrs.run.directory import Lock, Run
from openrs.run.files import read_jsonl

ASKED = "problems"
KEPT_TEXT = 400  # characters of a completion's end that stay in the journal: the answer is there
Decide = Callable[[Row], Row | Out]


class RowBenchmark(Benchmark):
    """The rows as a benchmark; their reference answers are read as in training."""

    as_in_training: str = "corrected"

    @property
    def rule(self) -> str:
        return self.as_in_training


class Tally(Samples):
    """A journal that remembers verdicts, and of a completion only its end: texts of 40,000 problems fill any memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rows = {key: _small(row) for key, row in self.rows.items()}

    def add(self, sample: Sample, **more: Any) -> None:
        super().add(replace(sample, text=sample.text[-KEPT_TEXT:]), **more)
        self.rows[sample.key] = _small(self.rows[sample.key])


_SMALL: dict[tuple[str, str], dict[str, Any]] = {}


def _small(row: Mapping[str, Any]) -> dict[str, Any]:
    pair = (row["verdict"], row["finish"])
    return _SMALL.setdefault(pair, {"verdict": pair[0], "finish": pair[1]})


class Opinions(Judge):
    """In the place of the judge: the last KEEP or REMOVE of a completion. `correct` is KEEP."""

    def start(self) -> None:
        """Nothing has to: reading a word needs no process of its own."""

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        return [self._opinion(item.completion) for item in items]

    @staticmethod
    def _opinion(text: str) -> Grade:
        words = re.findall(r"\b(KEEP|REMOVE)\b", text)
        if not words:
            return Grade(Verdict.NO_ANSWER, "", "", 0.0)
        return Grade(Verdict.CORRECT if words[-1] == "KEEP" else Verdict.INCORRECT, "", words[-1], 0.0)


def ask(chain: Chain, settings: Difficulty | Form, before: Step) -> tuple[Decide, dict[str, Any]] | None:
    """The stage `difficulty`, or `form` with a model: what becomes of a row, and facts about the whole. None when only
    a shard's samples were generated."""
    rows = list(before.kept())  # a model's time is worth more than this memory: 1 KB a row and 7 KB a prompt
    if isinstance(settings, Form):
        assert settings.llm is not None
        rules = form(settings)
        rows = [row for row in rows if isinstance(rules(row), Row)]
        sampling, rule = settings.llm, None
    else:
        sampling, rule = settings, settings.rule
    verdicts, model = _verdicts(chain, rows, sampling, rule)
    if chain.shard is not None:
        return None
    if isinstance(settings, Form):
        return lambda row: _opinion(rules(row), verdicts), {"asked": len(rows), "model": model}
    total = sum((verdicts[_digest(row)] for row in rows), Counter())
    facts = {"samples": total.total(), "correct": total["correct"], "model": model}
    return lambda row: _by_rate(row, verdicts[_digest(row)], settings), facts


def _by_rate(row: Row, verdicts: Counter[str], settings: Difficulty) -> Row | Out:
    right, total = verdicts["correct"], verdicts.total()
    rate = right / total
    row = replace(row, right=right, samples=total)
    if settings.keep_below is not None and rate >= settings.keep_below:
        return Out("the model always solves it" if right == total else "too easy", f"{right} of {total} right", row=row)
    if rate < settings.keep_min:
        return Out("too hard", f"{right} of {total} right", row=row)
    return row


def _opinion(row: Row | Out, verdicts: Mapping[str, Counter[str]]) -> Row | Out:
    if isinstance(row, Out):
        return row
    counts = verdicts[_digest(row)]
    removes = counts["incorrect"]
    return Out("the model would remove it", f"{removes} of {counts.total()}") if removes > counts["correct"] else row


def _digest(row: Row) -> str:
    return fingerprint(row.problem, reference_answer(row))


def _verdicts(
    chain: Chain, rows: Sequence[Row], settings: Sampling, rule: str | None
) -> tuple[dict[str, Counter[str]], dict[str, Any]]:
    """Digest of a row -> how often which verdict; and the model. rule None: the completion is an opinion."""
    asked = {}
    for row in rows:
        prompt = settings.prompt.replace("{problem}", row.problem).replace("{answer}", row.answer)
        asked[_digest(row)] = EvalProblem(_digest(row), row.problem, reference_answer(row), prompt)
    problems, shard = list(asked.values()), chain.shard
    if shard is not None:
        problems = [one for one in problems if int(one.id, 16) % shard.of == shard.number - 1]
    plan = plan_of(problems, settings, rule, chain.recipe.seed) if problems else None
    counted: dict[str, Counter[str]] = {digest: Counter() for digest in asked}
    if plan is None:
        return counted, {}
    protocol = plan.record["protocol"]
    named = fingerprint(*(f"{k}={protocol[k]}" for k in sorted(protocol) if k not in ("samples", "batch_size", "name")),
                        *sorted(plan.record["model"]["sha256"].values()), settings.prompt, str(rule))  # fmt: skip
    folder = chain.work / "samples" / named
    own = folder / (f"samples-{shard.number}-of-{shard.of}" if shard is not None else "samples")
    judge = Judge() if rule is not None else Opinions(1)
    with Lock(Run(own)), judge, Tally(own / "samples.jsonl") as tally:
        keep_record(own, {**plan.record, "benchmarks": {}}, kept=bool(tally.rows))
        for path in sorted(folder.glob("samples-*/samples.jsonl")) if shard is None else ():
            for line in read_jsonl(path):  # what a shard drew stays where it is on disk
                tally.rows.setdefault(key_of(line, path), _small(line))
        sample(plan, tally, own, chain.progress, judge)
        for (_, digest, number), kept in tally.rows.items():
            if digest in counted and number < settings.samples:
                counted[digest][kept["verdict"]] += 1
    return counted, plan.record["model"]


def plan_of(problems: Sequence[EvalProblem], settings: Sampling, rule: str | None, seed: int) -> EvalPlan:
    """The evaluator's plan for these problems. Raises UserError for a model or an engine that cannot be used."""
    given = settings.model_dump(include={"samples", "temperature", "top_p", "max_tokens", "engine", "processes"})
    given |= settings.model_dump(include={"gpu_memory", "batch_size"}) | {"seed": seed}
    evaluation = Evaluation.model_validate(given)
    layout = layout_of(evaluation)
    folder = local_model(settings.model, settings.revision)
    target = Target(settings.model, str(folder), settings.revision, dtype=settings.dtype)
    encoder = ChatEncoder.from_folder(folder)
    encoder.check_template(Prompt())
    ids = [tuple(encoder.ids(one.prompt)) for one in problems]
    benchmark = RowBenchmark(
        name=ASKED, rows=len(problems), question="problem", gold=("answer",), gold_kind="latex", tokens=1,
        prompt=None, as_in_training=str(Rule(rule or "corrected")),
    )  # fmt: skip
    samples = {ASKED: settings.samples}
    evaluation, departures = fit_to_window(evaluation, max(map(len, ids)), context_of(folder))
    requests = requests_for({ASKED: problems}, {ASKED: ids}, samples, evaluation)
    refuse_long(requests, evaluation)
    bos = encoder.leading_bos(list(ids[0]))
    thinking = opens_thought(encoder.tokenizer.decode(list(ids[0]), skip_special_tokens=False))
    record = record_of(
        target, evaluation, folder, engine=layout.engine, bos=bos, benchmarks={}, inputs={}, departures=departures,
        thinking=thinking,
    )  # fmt: skip
    inputs = InputsReport((), (), (), None)
    return EvalPlan(
        target, evaluation, folder, [benchmark], {ASKED: problems}, samples, requests, inputs, layout, record
    )

"""An evaluation, whole: problems -> prompts -> samples -> verdicts -> scores. One model load for all benchmarks.

Leaves in its folder: settings.json, samples.jsonl (the journal), scores.json, results_<time>.json in lighteval's form.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs.data import prompts
from openrs.data.models import local_model
from openrs.data.tokenizer import guard, load_tokenizer
from openrs.errors import Refusal
from openrs.evaluation import benchmarks as bench
from openrs.evaluation.benchmarks import Benchmark, EvalProblem
from openrs.evaluation.inputs import check_inputs
from openrs.evaluation.sampling import (
    Decoding,
    Request,
    Sample,
    Samples,
    TransformersEngine,
    batches_of,
    seed_of,
)
from openrs.evaluation.scores import score, write_lighteval_results
from openrs.libraries import hide_progress_bars
from openrs.recipe import Evaluation, Prompt
from openrs.rewards.grading import Item, Judge, Rule
from openrs.rundir import now, sha256, write_json
from openrs.training.progress import Progress


@dataclass(frozen=True, slots=True)
class Target:
    """The model to evaluate: a folder or hub name. `step` is the training step it comes from, 0 for a run's base."""

    name: str
    path: str
    revision: str | None = None
    step: int | None = None
    dtype: str = "bfloat16"
    trust_remote_code: bool = False


Problems = Mapping[str, Sequence[EvalProblem]]


def evaluate(target: Target, settings: Evaluation, folder: Path, progress: Progress, judge: Judge) -> dict[str, Any]:
    """Sample what is missing, judge it, and write scores.json; returns its content.

    Raises Refusal for unusable models, benchmarks and settings, and when `folder` holds an evaluation made otherwise.
    """
    chosen = bench.resolve(settings.benchmarks)
    if not chosen:
        raise Refusal("no benchmark to evaluate on", mend=f"name some of: {', '.join(bench.known())}")
    data = Path(settings.data) if settings.data is not None else None
    problems = {benchmark.name: bench.load_problems(benchmark, data) for benchmark in chosen}
    folder_of_model = local_model(target.path, target.revision)
    inputs = check_inputs(chosen, data, folder_of_model)

    began = time.monotonic()
    tokenizer = load_tokenizer(folder_of_model, trust_remote_code=target.trust_remote_code)
    guard(tokenizer, folder_of_model)
    requests = requests_for(tokenizer, problems, settings)
    model = {"name": target.name, "revision": target.revision, "step": target.step, "sha256": weights(folder_of_model)}
    keep_settings(folder, {"model": model, "evaluation": settings.model_dump(), "requests": len(requests)})
    if (folder / "scores.json").is_file():
        progress.say(f"{target.name} is evaluated: {folder / 'scores.json'} is there")
        return read_scores(folder)
    batches = batches_of(requests, settings.batch_size)
    samples = Samples(folder / "samples.jsonl")
    seconds = {"load": 0.0, "generate": 0.0, "score": 0.0}
    missing = samples.missing(batches)
    if missing:
        hide_progress_bars()
        engine = TransformersEngine(
            folder_of_model, target.dtype, tokenizer, trust_remote_code=target.trust_remote_code
        )
        refuse_long_requests(requests, settings, engine.context)
        seconds["load"] = time.monotonic() - began
        work = Work(target.name, len(requests), samples, judge, progress, rules(chosen), golds(problems))
        decoding = Decoding(settings.temperature, settings.top_p, settings.max_tokens)
        began = time.monotonic()
        progress.start()
        for batch in engine.generate(missing, decoding):
            seconds["score"] += work.judge_and_keep(batch)
        seconds["generate"] = time.monotonic() - began - seconds["score"]
    samples.close()

    scores = {name: score(rows, name, settings.samples, samples.rows) for name, rows in problems.items()}
    protocol = settings.model_dump(include={"samples", "temperature", "top_p", "max_tokens", "seed"})
    document = {
        "schema": 1,
        "model": model,
        "protocol": {"name": "custom", **protocol, "engine": "transformers", "bos": bos_in_front(requests, tokenizer)},
        "inputs": inputs.as_json(),
        "benchmarks": scores,
        "seconds": seconds,
        "finished": now(),
    }
    write_lighteval_results(
        folder,
        settings,
        chosen,
        samples.rows,
        model=target.name,
        scores=scores,
        inputs=inputs,
        seconds=sum(seconds.values()),
    )
    write_json(folder / "scores.json", document)
    return document


@dataclass(frozen=True, slots=True)
class Work:
    """What a batch of finished completions goes through: the judge, the journal, the progress line."""

    name: str
    total: int
    samples: Samples
    judge: Judge
    progress: Progress
    rules: Mapping[str, Rule]
    golds: Mapping[tuple[str, str], str]

    def judge_and_keep(self, batch: Sequence[Sample]) -> float:
        """Returns the seconds that judging took."""
        began = time.monotonic()
        items = [Item(self.golds[s.benchmark, s.problem], s.text, self.rules[s.benchmark]) for s in batch]
        for sample, grade in zip(batch, self.judge.grade(items), strict=True):
            self.samples.add(sample, verdict=str(grade.verdict), answer=grade.answer)
        done = len(self.samples.rows)
        right = sum(row["verdict"] == "correct" for row in self.samples.rows.values())
        facts = {"correct": right / done, "cut off": sum(s.finish == "length" for s in batch) / len(batch)}
        self.progress.step(f"evaluate {self.name}", done, self.total, facts)
        return time.monotonic() - began


def requests_for(tokenizer: Any, problems: Problems, settings: Evaluation) -> list[Request]:
    """Every completion that is wanted, with its token ids and seed."""
    plain = Prompt(user="{problem}")
    requests = []
    for name, rows in problems.items():
        texts = [prompts.render(tokenizer, plain, problem.prompt) for problem in rows]
        for problem, ids in zip(rows, prompts.tokenize(tokenizer, plain, texts), strict=True):
            for sample in range(settings.samples):
                seed = seed_of(settings.seed, name, problem.id, sample)
                requests.append(Request(name, problem.id, sample, seed, tuple(ids)))
    return requests


def bos_in_front(requests: Sequence[Request], tokenizer: Any) -> int:
    """How many BOS tokens the prompts begin with: one is usual, the authors' evaluation had two."""
    return next(n for n, token in enumerate(requests[0].ids) if token != tokenizer.bos_token_id)


def read_scores(folder: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return scores


def rules(chosen: Sequence[Benchmark]) -> dict[str, Rule]:
    return {benchmark.name: Rule(benchmark.rule) for benchmark in chosen}


def golds(problems: Problems) -> dict[tuple[str, str], str]:
    return {(name, problem.id): problem.gold for name, rows in problems.items() for problem in rows}


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of the weight files of a model folder."""
    return {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}


def refuse_long_requests(requests: Sequence[Request], settings: Evaluation, context: int | None) -> None:
    longest = max(len(request.ids) for request in requests)
    if context is not None and longest + settings.max_tokens > context:
        raise Refusal(
            f"a prompt of {longest} tokens and max_tokens = {settings.max_tokens} do not fit into the model's"
            f" window of {context}",
            "the model was never trained beyond its window",
            f"set --max-tokens to at most {context - longest}",
        )


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """An evaluation's folder holds one model under one protocol: samples of two would be counted together."""
    path = folder / "settings.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != settings:
            changed = [key for key in settings if before.get(key) != settings[key]]
            raise Refusal(
                f"{folder} holds an evaluation with another {' and '.join(changed)}",
                "its samples and new ones would be counted together",
                "give another --out, or remove the folder",
            )
    write_json(path, settings)

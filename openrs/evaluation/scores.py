"""From finished samples to scores.json, and to a results file in lighteval's form that other tools read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrs.evaluation import statistics
from openrs.evaluation.benchmarks import Benchmark, EvalProblem
from openrs.evaluation.inputs import HASHES, InputsReport, combined
from openrs.recipe import Evaluation
from openrs.rundir import now, write_json

Rows = Mapping[tuple[str, str, int], Mapping[str, Any]]


def score(problems: Sequence[EvalProblem], benchmark: str, samples: int, rows: Rows) -> dict[str, Any]:
    """Scores of one benchmark from its samples; `rows` holds all n x k of them.

    Returns the benchmark's part of scores.json: accuracy is avg@k, the interval takes the problems as a sample.
    """
    grid = [[rows[benchmark, problem.id, sample] for sample in range(samples)] for problem in problems]
    correct = [[int(row["verdict"] == "correct") for row in line] for line in grid]
    answers = [[row["answer"] or None for row in line] for line in grid]
    average = statistics.avg_at_k(correct)
    flat = [row for line in grid for row in line]
    return {
        "n": average.n,
        "k": samples,
        "accuracy": average.value,
        "stderr": average.se_problems,
        "interval": [average.problems.low, average.problems.high],
        "stderr_fixed": average.se_fixed,
        "interval_fixed": [average.fixed.low, average.fixed.high],
        "pass_at_k": {str(k): statistics.pass_at_k(correct, k).value for k in powers_of_two(samples)},
        "majority": statistics.majority_at_k(answers, correct).value if samples > 1 else None,
        "truncated": sum(row["finish"] == "length" for row in flat),
        "mean_tokens": sum(row["tokens"] for row in flat) / len(flat),
        "verdicts": dict(Counter(str(row["verdict"]) for row in flat).most_common()),
        "per_problem": {problem.id: line for problem, line in zip(problems, correct, strict=True)},
    }


def powers_of_two(k: int) -> list[int]:
    """1, 2, 4 ... up to k, and k itself."""
    steps = [1]
    while steps[-1] * 2 <= k:
        steps.append(steps[-1] * 2)
    return steps if steps[-1] == k else [*steps, k]


def write_lighteval_results(
    folder: Path,
    settings: Evaluation,
    benchmarks: Sequence[Benchmark],
    rows: Rows,
    *,
    model: str,
    scores: Mapping[str, Mapping[str, Any]],
    inputs: InputsReport,
    seconds: float,
) -> Path:
    """results_<time>.json with the six top keys of lighteval 0.13 (stack.md, section 7).

    The metric is `extractive_match` for one sample a problem, as in the paper's logs, `avg@n:n=K` for more.
    """
    metric = "extractive_match" if settings.samples == 1 else f"avg@n:n={settings.samples}"
    results = {
        f"{name}|0": {metric: score["accuracy"], f"{metric}_stderr": score["stderr"]} for name, score in scores.items()
    }
    mean = sum(score["accuracy"] for score in scores.values()) / len(scores)
    hashes = {(check.benchmark, check.hash): check.found for check in inputs.checks}
    ended = now()
    path = folder / f"results_{ended.replace(':', '-')}.json"
    generation = {
        "max_new_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": settings.seed,
    }
    document = {
        "config_general": {
            "lighteval_sha": "?",
            "num_fewshot_seeds": 1,
            "max_samples": None,
            "job_id": "0",
            "total_evaluation_time_secondes": str(seconds),
            "model_config": {"model_name": model, "generation_parameters": generation},
            "model_name": model,
            "written_by": "openrs",
        },
        "results": {**results, "all": {metric: mean}},
        "versions": {},
        "config_tasks": {f"{b.name}|0": task(b, scores[b.name], metric, settings) for b in benchmarks},
        "summary_tasks": {
            f"{name}|0": {
                "hashes": {
                    **{kind: hashes.get((name, kind)) for kind in HASHES},
                    "hash_cont_tokens": combined(row["tokens_hash"] for key, row in rows.items() if key[0] == name),
                },
                "truncated": scores[name]["truncated"],
                "non_truncated": scores[name]["n"] * settings.samples - scores[name]["truncated"],
                "padded": 0,
                "non_padded": scores[name]["n"] * settings.samples,
            }
            for name in scores
        },
        "summary_general": {"written": ended},
    }
    write_json(path, document)
    return path


def task(benchmark: Benchmark, score: Mapping[str, Any], metric: str, settings: Evaluation) -> dict[str, Any]:
    return {
        "name": benchmark.name,
        "hf_repo": benchmark.hub,
        "hf_subset": benchmark.subset,
        "hf_revision": benchmark.revision,
        "metrics": [{"metric_name": metric, "higher_is_better": True, "category": "GENERATIVE"}],
        "evaluation_splits": [benchmark.split],
        "generation_size": settings.max_tokens,
        "num_samples": [settings.samples],
        "original_num_docs": score["n"],
        "effective_num_docs": score["n"],
        "num_fewshots": 0,
        "version": 1,
    }

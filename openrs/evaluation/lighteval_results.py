"""results_<time>.json as lighteval 0.13 writes it, byte for byte (tests/evaluation/test_lighteval_results.py compares).

What a sample is worth was decided by the judge, whose workers run lighteval's metric (openrs/rewards/worker.py).
lighteval itself is not imported: only its loggers would be needed, and they bring torch, datasets and inspect_ai, which
takes longer than a small evaluation.
"""

import functools
import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openrs.evaluation.benchmarks import Benchmark, digest
from openrs.evaluation.sampling import Rows
from openrs.run.files import write_text

HASHES = ("hash_examples", "hash_full_prompts", "hash_input_tokens", "hash_cont_tokens")
# How lighteval's objects print themselves (metrics_sample.py, dynamic_metrics.py): the metrics of lighteval_tasks.py.
EXPRESSION = "ExprExtractionConfig(try_extract_without_anchor=True)"
LETTER = "IndicesExtractionConfig(prefix_for_extraction='NativeLetters', try_extract_without_anchor=True)"
LATEX = (
    "LatexExtractionConfig(try_extract_without_anchor=True, boxed_match_priority={},"
    " normalization_config=NormalizationConfig(basic_latex=True, units=True, malformed_operators=True, nits=True,"
    " boxed='all', equations=True))"
)
MATCH = (
    "MultilingualExtractiveMatchMetric(language=Language.ENGLISH, gold_extraction_target=[{}],"
    " pred_extraction_target=[{}], aggregation_function=max, fallback_mode=first_match, extraction_mode=any_match,"
    " precision=5, timeout_seconds=5)"
)
AVERAGE = (
    "AvgAtN(normalize=None, strip_strings=False, compute_score=compute, type_exact_match=None, n={},"
    " attribute_must_be_set=['n'])"
)


def write_results(
    folder: Path, benchmarks: Sequence[Benchmark], scores: Mapping[str, Any], record: Mapping[str, Any], rows: Rows
) -> Path:
    """Write the file and return its path.

    scores: content of scores.json. record: content of settings.json. rows: the samples. The metric is
    `extractive_match` for one sample a problem, as in the paper's logs, and `avg@n:n=K` for K.
    `hash_cont_tokens` is lighteval's for one sample a problem; for more it is over the samples' own hashes.
    """
    path = folder / f"results_{datetime.now(UTC).replace(tzinfo=None).isoformat().replace(':', '-')}.json"
    tree = tree_of(benchmarks, scores, record, rows)
    write_text(path, json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    return path


def tree_of(
    benchmarks: Sequence[Benchmark], scores: Mapping[str, Any], record: Mapping[str, Any], rows: Rows
) -> dict[str, Any]:
    protocol, asked = record["protocol"], record["benchmarks"]
    results, configs, summaries = {}, {}, {}
    for one in benchmarks:
        k, per_problem = asked[one.name]["k"], scores["benchmarks"][one.name]["per_problem"]
        name, metric = f"{one.name}|0", "extractive_match" if k == 1 else f"avg@n:n={k}"
        results[name] = mean_and_error(metric, [sum(line) / len(line) for line in per_problem.values()])
        configs[name] = task_config(one, metric, k, protocol["max_tokens"])
        lines = ([rows[one.name, problem, sample] for sample in range(k)] for problem in per_problem)
        # lighteval's own hashing needs every token of every sample; these were made as the samples came in.
        hashes = dict.fromkeys(HASHES, digest("")) | {"hash_cont_tokens": digest("".join(sorted(map(_hash, lines))))}
        hashes |= {key: value for key, value in asked[one.name].items() if key.startswith("hash_")}
        summaries[name] = summary(hashes, len(per_problem))
    ordered = [summaries[name]["hashes"] for name in sorted(summaries)]
    combined = {key: digest("".join(hashes[key] for hashes in ordered)) for key in ordered[0]}
    return {
        "config_general": general(scores, protocol),
        "results": {**results, "all": average(results.values())},
        "versions": dict.fromkeys(results, 1),
        "config_tasks": configs,
        "summary_tasks": summaries,
        "summary_general": summary(combined, sum(one["non_padded"] for one in summaries.values())),
    }


def mean_and_error(metric: str, values: Sequence[float]) -> dict[str, float]:
    """The mean over problems and its standard error, which a single problem has none of (metrics/utils/stderr.py)."""
    import numpy as np

    mean = np.float64(np.mean(values))
    if len(values) == 1:
        return {metric: mean}
    spread = math.sqrt(added((value - mean) ** 2 for value in values) / (len(values) - 1))
    return {metric: mean, f"{metric}_stderr": spread / math.sqrt(len(values))}


def added(values: Iterable[float]) -> float:
    """One after the other, as lighteval adds them: since Python 3.12 `sum` of floats rounds otherwise."""
    return functools.reduce(operator.add, values)


def average(results: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of each metric over the tasks that have it."""
    values: dict[str, list[float]] = {}
    for result in results:
        for metric, value in result.items():
            values.setdefault(metric, []).append(value)
    return {metric: added(some) / len(some) for metric, some in values.items()}


def _hash(line: Sequence[Mapping[str, Any]]) -> str:
    return str(line[0]["tokens_hash"]) if len(line) == 1 else digest("".join(row["tokens_hash"] for row in line))


def summary(hashes: Mapping[str, str], problems: int) -> dict[str, Any]:
    return {"hashes": hashes, "truncated": 0, "non_truncated": problems, "padded": 0, "non_padded": problems}


def task_config(benchmark: Benchmark, metric: str, k: int, max_tokens: int) -> dict[str, Any]:
    """lighteval's LightevalTaskConfig of the benchmark, with one SampleLevelMetric."""
    golds = {"expr": EXPRESSION, "latex": LATEX.format(55), "index": LETTER}
    answers = LETTER if benchmark.gold_kind == "index" else f"{EXPRESSION}, {LATEX.format(0)}"
    return {
        "name": benchmark.name,
        "prompt_function": "prompt",
        "hf_repo": benchmark.hub or benchmark.generator or benchmark.name,
        "hf_subset": benchmark.subset,
        "metrics": [
            {
                "metric_name": metric,
                "higher_is_better": True,
                "category": "GENERATIVE",
                "sample_level_fn": MATCH.format(golds[benchmark.gold_kind], answers) if k == 1 else AVERAGE.format(k),
                "corpus_level_fn": "mean",
                "batched_compute": False,
            }
        ],
        **dict.fromkeys(("solver", "scorer", "sample_fields", "sample_to_fewshot", "filter")),
        "hf_revision": benchmark.revision,
        "hf_filter": None,
        "hf_avail_splits": [benchmark.split],
        "evaluation_splits": [benchmark.split],
        "few_shots_split": None,
        "few_shots_select": None,
        "generation_size": max_tokens,
        "generation_grammar": None,
        "stop_sequence": [],
        "num_samples": None,
        "original_num_docs": benchmark.rows,
        "effective_num_docs": benchmark.rows,
        "must_remove_duplicate_docs": False,
        "num_fewshots": 0,
        "version": 1,
    }


def general(scores: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """lighteval's config_general, and under `openrs` what it has no place for. `model_sha` as up to lighteval 0.10."""
    model, seconds = scores["model"], sum(scores["seconds"].values())
    unset = ("num_blocks", "block_size", "early_stopping", "repetition_penalty", "frequency_penalty", "length_penalty")
    return {
        "lighteval_sha": "?",
        "num_fewshot_seeds": 1,
        "max_samples": None,
        "job_id": "0",
        "start_time": 0.0,
        "end_time": seconds,
        "total_evaluation_time_secondes": str(seconds),
        "model_config": {
            "model_name": model["name"],
            "generation_parameters": {
                **dict.fromkeys((*unset, "presence_penalty")),
                "max_new_tokens": protocol["max_tokens"],
                "min_new_tokens": None,
                "seed": protocol["seed"],
                "stop_tokens": None,
                "temperature": float(protocol["temperature"]),
                "top_k": None,
                "min_p": None,
                "top_p": float(protocol["top_p"]),
                **dict.fromkeys(("truncate_prompt", "cache_implementation", "response_format")),
            },
            "system_prompt": None,
        },
        "model_name": model["name"],
        "model_sha": model["revision"] or "",
        "openrs": {
            "protocol": protocol,
            "sha256": model["sha256"],
            "inputs_proven": scores["inputs"]["proven"],
            "strict": {
                name: {key: score["strict"][key] for key in ("accuracy", "disagree", "only_lighteval", "only_strict")}
                for name, score in scores["benchmarks"].items()
                if score.get("strict")
            },
        },
    }

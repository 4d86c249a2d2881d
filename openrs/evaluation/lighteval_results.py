"""results_<time>.json as lighteval 0.13 writes it: by its own loggers, from its own tasks and with its aggregation.

What a sample is worth was decided by the judge, whose workers run lighteval's metric (openrs/rewards/worker.py). Here
its mean over samples and problems, its standard error and its hashes are lighteval's own. Importing lighteval takes
seconds; nothing of it asks the network (its registry, which does, is not imported).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openrs.evaluation.benchmarks import Benchmark, digest
from openrs.evaluation.lighteval_tasks import task_config
from openrs.evaluation.scores import Rows
from openrs.run.files import write_text


def write_results(
    folder: Path, benchmarks: Sequence[Benchmark], scores: Mapping[str, Any], record: Mapping[str, Any], rows: Rows
) -> Path:
    """Write the file and return its path.

    scores: content of scores.json. record: content of settings.json. rows: the samples. The metric is
    `extractive_match` for one sample a problem, as in the paper's logs, and `avg@n:n=K` for K.
    `hash_cont_tokens` is lighteval's for one sample a problem; for more it is over the samples' own hashes.
    """
    from lighteval.logging.evaluation_tracker import EnhancedJSONEncoder

    path = folder / f"results_{datetime.now(UTC).replace(tzinfo=None).isoformat().replace(':', '-')}.json"
    tree = tree_of(benchmarks, scores, record, rows)
    write_text(path, json.dumps(tree, cls=EnhancedJSONEncoder, indent=2, ensure_ascii=False) + "\n")
    return path


def tree_of(
    benchmarks: Sequence[Benchmark], scores: Mapping[str, Any], record: Mapping[str, Any], rows: Rows
) -> dict[str, Any]:
    from lighteval.logging.info_loggers import MetricsLogger, TaskConfigLogger
    from lighteval.tasks.lighteval_task import LightevalTask

    protocol, asked = record["protocol"], record["benchmarks"]
    tasks = {}
    metrics = MetricsLogger()
    for benchmark in benchmarks:
        task = LightevalTask(task_config(benchmark, asked[benchmark.name]["k"], protocol["max_tokens"]))
        tasks[task.full_name] = task
        (metric,) = task.metrics
        for line in scores["benchmarks"][benchmark.name]["per_problem"].values():
            metrics.log(task.full_name, {metric.metric_name: sum(line) / len(line)})
    metrics.aggregate(tasks)
    configs = TaskConfigLogger()
    configs.log(tasks)
    details = details_of(tasks, scores, asked, rows)
    return {
        "config_general": general(scores, protocol),
        "results": metrics.metric_aggregated,
        "versions": {name: task.version for name, task in tasks.items()},
        "config_tasks": configs.tasks_configs,
        "summary_tasks": details.compiled_details,
        "summary_general": details.compiled_details_over_all_tasks,
    }


def details_of(tasks: Mapping[str, Any], scores: Mapping[str, Any], asked: Mapping[str, Any], rows: Rows) -> Any:
    """lighteval's DetailsLogger with its summaries made. Its own hashing needs every token of every sample in memory;
    the hashes were made as the samples came in."""
    from lighteval.logging.info_loggers import DetailsLogger

    details = DetailsLogger()
    for full_name, task in tasks.items():
        k = asked[task.name]["k"]
        problems = scores["benchmarks"][task.name]["per_problem"]
        lines = [[rows[task.name, problem, sample] for sample in range(k)] for problem in problems]
        details.hashes[full_name] = [DetailsLogger.Hash(cont_tokens=_tokens_hash(line)) for line in lines]
        details.compiled_details[full_name] = DetailsLogger.CompiledDetail(
            non_truncated=len(lines), non_padded=len(lines)
        )
        details.details[full_name] = []
    details.aggregate()
    for full_name, task in tasks.items():
        hashes = {name: value for name, value in asked[task.name].items() if name.startswith("hash_")}
        details.compiled_details[full_name].hashes |= hashes
    summary = details.compiled_details_over_all_tasks
    summary.non_truncated = summary.non_padded = sum(one.non_padded for one in details.compiled_details.values())
    ordered = [one.hashes for _, one in sorted(details.compiled_details.items())]
    summary.hashes = {kind: digest("".join(hashes[kind] for hashes in ordered)) for kind in ordered[0]}
    return details


def _tokens_hash(line: Sequence[Mapping[str, Any]]) -> str:
    return str(line[0]["tokens_hash"]) if len(line) == 1 else digest("".join(row["tokens_hash"] for row in line))


def general(scores: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """lighteval's config_general, and under `openrs` what it has no place for. `model_sha` as up to lighteval 0.10."""
    from lighteval.models.abstract_model import ModelConfig
    from lighteval.models.model_input import GenerationParameters

    model, seconds = scores["model"], sum(scores["seconds"].values())
    config = ModelConfig(
        model_name=model["name"],
        generation_parameters=GenerationParameters(
            max_new_tokens=protocol["max_tokens"],
            temperature=protocol["temperature"],
            top_p=protocol["top_p"],
            seed=protocol["seed"],
        ),
    ).model_dump()
    config.pop("cache_dir")  # lighteval's cache of predictions is never used
    return {
        "lighteval_sha": "?",
        "num_fewshot_seeds": 1,
        "max_samples": None,
        "job_id": "0",
        "start_time": 0.0,
        "end_time": seconds,
        "total_evaluation_time_secondes": str(seconds),
        "model_config": config,
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

"""Run by test_lighteval_results.py in a process of its own (lighteval sets SIGALRM): lighteval itself scores and
logs the samples that openrs drew, and its own loggers and encoder write what openrs's results file says. stdin and
stdout are JSON.

The network is shut first: lighteval may not ask for it at import, load or run.
"""

import json
import socket
import sys
from pathlib import Path


def refuse(*_args, **_kwargs):
    raise SystemExit("lighteval asked for the network")


socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse

from lighteval.logging.evaluation_tracker import EnhancedJSONEncoder, EvaluationTracker  # noqa: E402
from lighteval.logging.info_loggers import DetailsLogger, MetricsLogger, TaskConfigLogger  # noqa: E402
from lighteval.metrics import apply_metric  # noqa: E402
from lighteval.models.abstract_model import ModelConfig  # noqa: E402
from lighteval.models.model_input import GenerationParameters  # noqa: E402
from lighteval.models.model_output import ModelResponse  # noqa: E402
from lighteval.tasks.lighteval_task import LightevalTask  # noqa: E402
from lighteval.tasks.requests import Doc  # noqa: E402
from lighteval_tasks import paper_metric, task, task_config  # noqa: E402

from openrs.evaluation.benchmarks import digest, resolve  # noqa: E402


def own_results(asked: dict) -> dict:
    """What lighteval's tracker would write. asked: definitions, data, samples, max_tokens, and by problem its texts,
    their tokens and the token ids of the prompt."""
    tracker = EvaluationTracker(output_dir="/nowhere")
    tasks = [
        task(one, Path(asked["data"]), asked["samples"], asked["max_tokens"]) for one in resolve(asked["definitions"])
    ]
    for one in tasks:
        docs = one.get_docs()
        responses = [
            ModelResponse(text=texts, output_tokens=tokens, input_tokens=ids)
            for texts, tokens, ids in (asked["by_problem"][doc.specific["problem_id"]] for doc in docs)
        ]
        for output, doc, response in zip(
            apply_metric(responses, docs, list(one.metrics)), docs, responses, strict=True
        ):
            tracker.metrics_logger.log(one.full_name, output)
            tracker.details_logger.log(one.full_name, doc, response, output)
    by_name = {one.full_name: one for one in tasks}
    tracker.task_config_logger.log(by_name)
    tracker.metrics_logger.aggregate(by_name)
    tracker.details_logger.aggregate()
    tracker.general_config_logger.log_model_info(ModelConfig(model_name="m"))
    return json.loads(json.dumps(tracker.results, cls=EnhancedJSONEncoder))


def letters(texts: list[str]) -> list[float]:
    metric, doc = paper_metric("index"), Doc(query="", choices=list("ABCD"), gold_index=1)
    return [
        metric.compute_sample(doc=doc, model_response=ModelResponse(text=[text]))["extractive_match"] for text in texts
    ]


def written(asked: dict) -> str:
    """The results file of these scores as lighteval's loggers and its encoder write it. asked: names of benchmarks,
    scores, record, and rows as [key, row]."""
    protocol, facts, scores = asked["record"]["protocol"], asked["record"]["benchmarks"], asked["scores"]
    rows = {tuple(key): row for key, row in asked["rows"]}
    tasks, metrics, configs, details = {}, MetricsLogger(), TaskConfigLogger(), DetailsLogger()
    for benchmark in resolve(asked["names"]):
        k, problems = facts[benchmark.name]["k"], scores["benchmarks"][benchmark.name]["per_problem"]
        one = LightevalTask(task_config(benchmark, k, protocol["max_tokens"]))
        tasks[one.full_name] = one
        for line in problems.values():
            metrics.log(one.full_name, {one.metrics[0].metric_name: sum(line) / len(line)})
        hashes = [[rows[benchmark.name, problem, n]["tokens_hash"] for n in range(k)] for problem in problems]
        details.hashes[one.full_name] = [
            DetailsLogger.Hash(cont_tokens=line[0] if k == 1 else digest("".join(line))) for line in hashes
        ]
        details.details[one.full_name] = []
        details.compiled_details[one.full_name].non_truncated = len(hashes)
        details.compiled_details[one.full_name].non_padded = len(hashes)
    metrics.aggregate(tasks)
    configs.log(tasks)
    details.aggregate()
    for name, one in tasks.items():
        known = {key: value for key, value in facts[one.name].items() if key.startswith("hash_")}
        details.compiled_details[name].hashes |= known
    whole = details.compiled_details_over_all_tasks
    whole.non_truncated = whole.non_padded = sum(one.non_padded for one in details.compiled_details.values())
    parts = [details.compiled_details[name].hashes for name in sorted(tasks)]
    whole.hashes = {kind: digest("".join(one[kind] for one in parts)) for kind in parts[0]}
    tree = {
        "config_general": general(scores, protocol, asked["openrs"]),
        "results": metrics.metric_aggregated,
        "versions": {name: one.version for name, one in tasks.items()},
        "config_tasks": configs.tasks_configs,
        "summary_tasks": details.compiled_details,
        "summary_general": whole,
    }
    return json.dumps(tree, cls=EnhancedJSONEncoder, indent=2, ensure_ascii=False) + "\n"


def general(scores: dict, protocol: dict, openrs: dict) -> dict:
    """config_general with `openrs` in it. GeneralConfigLogger itself has no such place, and asks git."""
    names = {"max_new_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}
    model, seconds = scores["model"], sum(scores["seconds"].values())
    config = ModelConfig(
        model_name=model["name"],
        generation_parameters=GenerationParameters(**{theirs: protocol[ours] for theirs, ours in names.items()}),
    ).model_dump()
    config.pop("cache_dir")
    return {
        "lighteval_sha": "?", "num_fewshot_seeds": 1, "max_samples": None, "job_id": "0", "start_time": 0.0,
        "end_time": seconds, "total_evaluation_time_secondes": str(seconds), "model_config": config,
        "model_name": model["name"], "model_sha": model["revision"] or "", "openrs": openrs,
    }  # fmt: skip


given = json.load(sys.stdin)
own = [own_results(asked) for asked in given["evaluations"]]
files = [written(asked) for asked in given["files"]]
json.dump({"results": own, "letters": letters(given["letters"]), "files": files}, sys.stdout)

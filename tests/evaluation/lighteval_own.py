"""Run by test_lighteval_results.py in a process of its own (lighteval sets SIGALRM): lighteval itself scores and
logs the samples that openrs drew. stdin and stdout are JSON.

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
from lighteval.metrics import apply_metric  # noqa: E402
from lighteval.models.abstract_model import ModelConfig  # noqa: E402
from lighteval.models.model_output import ModelResponse  # noqa: E402
from lighteval.tasks.requests import Doc  # noqa: E402

from openrs.evaluation.benchmarks import resolve  # noqa: E402
from openrs.evaluation.lighteval_tasks import paper_metric, task  # noqa: E402


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


given = json.load(sys.stdin)
own = [own_results(asked) for asked in given["evaluations"]]
json.dump({"results": own, "letters": letters(given["letters"])}, sys.stdout)

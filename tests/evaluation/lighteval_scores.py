"""Run by test_lighteval_tasks.py in a process of its own (lighteval sets SIGALRM):
our tasks as lighteval sees them. stdin and stdout are JSON.
"""

import json
import random
import sys
from pathlib import Path

from lighteval.models.model_output import ModelResponse
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc
from lighteval_tasks import paper_metric, task, task_config

from openrs.evaluation.benchmarks import known, problem_of


def main(data: Path, questions: list[list[str]]) -> dict:
    tasks = {name: task(benchmark, data) for name, benchmark in known().items() if benchmark.hashes}
    docs = {doc.specific["problem_id"]: (name, doc) for name, made in tasks.items() for doc in made.get_docs()}
    scores = []
    for problem, completion in questions:
        name, doc = docs[problem]
        (metric,) = tasks[name].metrics
        scores.append(metric.compute_sample(doc=doc, model_response=ModelResponse(text=[completion])))
    four = task(known()["amc23"], data, samples=4)
    first = next(doc for doc in four.get_docs() if doc.specific["problem_id"] == "amc23/0")
    right = [r"\boxed{27}", "27", "28", ""]
    configs = {name: task_config(benchmark) for name, benchmark in known().items()}
    row = {"Question": "Which?", "Correct Answer": "this", **{f"Incorrect Answer {n}": f"no{n}" for n in (1, 2, 3)}}
    gpqa = []
    for seed in range(8):
        random.seed(seed)
        gpqa.append(problem_of(known()["gpqa_diamond"], row, "row 1"))
    doc = Doc(query="", choices=list("ABCD"), gold_index=1)
    letters = ["Answer: B", "so (B).", "Answer: A", "none"]
    index = paper_metric("index")
    return {
        "docs": {name: len(made.get_docs()) for name, made in tasks.items()},
        "queries": {problem: doc.query for problem, (_, doc) in docs.items()},
        "scores": scores,
        "four": [
            first.num_samples,
            four.metrics[0].compute_sample(doc=first, model_response=ModelResponse(text=right)),
        ],
        "configs": {
            name: [config.hf_repo, config.hf_revision, config.generation_size, config.full_name]
            for name, config in configs.items()
            if isinstance(config, LightevalTaskConfig)
        },
        "gpqa": [[problem.prompt, problem.gold, problem.id] for problem in gpqa],
        "letters": [
            index.compute_sample(doc=doc, model_response=ModelResponse(text=[text]))["extractive_match"]
            for text in letters
        ],
    }


json.dump(main(Path(sys.argv[1]), json.load(sys.stdin)), sys.stdout)

"""The whole way in one command: base evaluation -> training -> evaluation of its checkpoints -> report.

Every stage looks at what is there first, so the same command resumes where it was stopped.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from openrs.config.schema import Recipe
from openrs.evaluation.plan import Target
from openrs.evaluation.run import JUDGE_SECONDS, evaluate
from openrs.evaluation.scores import format_score
from openrs.evaluation.targets import base_of_run, targets_of_run
from openrs.report.pages.page import write_report
from openrs.rewards.grading import Judge
from openrs.run.directory import Run
from openrs.run.progress import Progress
from openrs.training.launch import train
from openrs.training.train import prepare


def reproduce(recipe: Recipe, run: Run, progress: Progress) -> Path:
    """Do what is missing of a recipe's stages in `run`; returns the report. The caller holds the run's lock."""
    prepared = prepare(recipe, run, progress)
    trust = recipe.model.trust_remote_code
    # The base alone: the checkpoint of an interruption is no stage of the recipe, and evaluating it can take hours.
    evaluate_stage(recipe, run, progress, [base_of_run(run, recipe, trust_remote_code=trust)])
    train(recipe, run, progress, prepared)
    scores = evaluate_stage(recipe, run, progress, targets_of_run(run, recipe, trust_remote_code=trust))
    report = write_report(run)
    for line in compare(scores[0], scores[-1]):
        progress.say(line)
    progress.say(f"report: {report}")
    return report


def compare(base: Mapping[str, Any], last: Mapping[str, Any]) -> list[str]:
    """Two scores.json as lines: base and last checkpoint of each benchmark. A checkpoint may have been evaluated on
    more benchmarks than the base, by `openrs evaluate`."""
    lines = []
    for name, score in last["benchmarks"].items():
        if name in base["benchmarks"]:
            lines.append(f"{name}, base:    {format_score(base['benchmarks'][name])}")
        lines.append(f"{name}, step {last['model']['step']}: {format_score(score)}")
    return lines


def evaluate_stage(recipe: Recipe, run: Run, progress: Progress, targets: Iterable[Target]) -> list[dict[str, Any]]:
    """Evaluate these models of a run as the recipe says; what is evaluated already is only read."""
    with Judge(recipe.rewards.workers, JUDGE_SECONDS, int(recipe.rewards.memory_gib * 2**30)) as judge:
        results = [
            evaluate(target, recipe.evaluation, run.evaluation(target.label), progress, judge) for target in targets
        ]
    return [scores for scores in results if scores is not None]

"""The whole way in one command: base evaluation -> training -> evaluation of its checkpoints -> report.

Every stage looks at what is there first, so the same command goes on where it was stopped.
"""

from pathlib import Path
from typing import Any

from openrs.config.schema import Recipe
from openrs.data.problems import load_problems
from openrs.evaluation.run import JUDGE_SECONDS, evaluate
from openrs.evaluation.scores import format_score
from openrs.evaluation.targets import targets_of_run
from openrs.report.pages.page import write_report
from openrs.rewards.grading import Judge
from openrs.run.directory import Run
from openrs.run.progress import Progress
from openrs.training.launch import train
from openrs.training.train import base_model


def reproduce(recipe: Recipe, run: Run, progress: Progress) -> Path:
    """Do what is missing of a recipe's stages in `run`; returns the report. The caller holds the run's lock."""
    load_problems(recipe.data)  # bad data is refused before a model is made, brought here or evaluated
    base_model(recipe, run, progress)
    before = evaluate_stage(recipe, run, progress)[0]
    train(recipe, run, progress)
    after = evaluate_stage(recipe, run, progress)[-1]
    report = write_report(run)
    for name, score in after["benchmarks"].items():
        first, last = before["benchmarks"][name], score
        progress.say(f"{name}, base:    {format_score(first)}")
        progress.say(f"{name}, step {after['model']['step']}: {format_score(last)}")
    progress.say(f"report: {report}")
    return report


def evaluate_stage(recipe: Recipe, run: Run, progress: Progress) -> list[dict[str, Any]]:
    """Evaluate the base (step 0) and the checkpoints that there are, by the recipe's rule."""
    with Judge(recipe.rewards.workers, JUDGE_SECONDS, int(recipe.rewards.memory_gib * 2**30)) as judge:
        found = [
            evaluate(target, recipe.evaluation, run.evaluation(target.label), progress, judge)
            for target in targets_of_run(run, recipe, trust_remote_code=recipe.model.trust_remote_code)
        ]
    return [scores for scores in found if scores is not None]

"""What `openrs evaluate MODEL` may name: a model folder, a hub repository, or a run with its base and checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openrs import manifest
from openrs.errors import Refusal
from openrs.evaluation.run import Target, evaluate
from openrs.libraries import quiet
from openrs.recipe import Evaluation, Recipe, with_changes
from openrs.rewards.grading import Judge
from openrs.rundir import Lock, Run, run_at
from openrs.training import checkpoints
from openrs.training.progress import Progress


def targets_of_run(run: Run, recipe: Recipe) -> list[Target]:
    """The run's base as step 0 and its checkpoints by the rule that the recipe fixed before training: last, or all."""
    base = str(run.path / "base") if recipe.model.made is not None else recipe.model.name
    dtype, code = recipe.model.dtype, recipe.model.trust_remote_code
    found = [Target(name_of(0), base, recipe.model.revision, 0, dtype, code)]
    folders = checkpoints.complete(run.checkpoints)
    chosen = folders[-1:] if recipe.evaluation.checkpoints == "last" else folders
    return found + [Target(f.name, str(f), None, checkpoints.step_of(f), dtype, code) for f in chosen]


def name_of(step: int) -> str:
    return f"step-{step:06d}"


def evaluate_model(
    model: str,
    revision: str | None,
    dtype: str,
    keep_in: str | None,
    changes: Mapping[str, Any],
    *,
    trust_remote_code: bool,
) -> list[dict[str, Any]]:
    """`openrs evaluate`: a run's base and checkpoints under its recipe's evaluation, or one model under the defaults.

    `changes` are the settings of the command line. Evaluations of a run stay in the run, unless `keep_in` names
    another; those of other models go to runs/evaluations.
    """
    run = run_at(model)
    recipe = manifest.recipe_of(run)
    settings = with_changes(recipe.evaluation if recipe is not None else Evaluation(), changes)
    targets = (
        targets_of_run(run, recipe)
        if recipe is not None
        else [Target(_name(model), model, revision, None, dtype, trust_remote_code)]
    )
    run = run_at(keep_in) if keep_in is not None else run if recipe is not None else run_at("evaluations")
    quiet()
    progress = Progress()
    found = []
    with Judge() as judge:
        for target in targets:
            folder = run.evaluation(target.name)
            with Lock(Run(folder)):
                found.append(evaluate(target, settings, folder, progress, judge))
            for name, score in found[-1]["benchmarks"].items():
                progress.say(f"{target.name}, {name}: {told(score)}")
            progress.say(f"samples and scores: {folder}")
    return found


def _name(model: str) -> str:
    folder = Path(model)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise Refusal(f"{folder} is no model folder (it has no config.json) and no run", mend="give one of the two")
    return folder.resolve().name if folder.is_dir() else model


def told(score: Mapping[str, Any]) -> str:
    """An accuracy is never said without n, k and its interval."""
    low, high = score["interval"]
    cut = f", {score['truncated']} cut off" if score["truncated"] else ""
    return (
        f"{100 * score['accuracy']:.1f} % right (avg@{score['k']}, {score['n']} problems,"
        f" 95 % interval {100 * low:.1f} to {100 * high:.1f}{cut})"
    )

"""What `openrs evaluate MODEL` may name: a model folder, a hub repository, one of the paper's checkpoints, a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrs.config.checks import grpo_value
from openrs.config.names import is_hub_name
from openrs.config.schema import Evaluation, Recipe
from openrs.errors import UserError
from openrs.evaluation.merge import merge
from openrs.evaluation.plan import Target
from openrs.evaluation.protocols import chosen
from openrs.evaluation.rejudge import rejudge
from openrs.evaluation.run import JUDGE_SECONDS, evaluate
from openrs.evaluation.scores import format_score
from openrs.evaluation.shards import shard_from
from openrs.hub import adapters, pins
from openrs.hub.models import local_model
from openrs.rewards.grading import Judge, processors
from openrs.run import checkpoints, manifest, signals
from openrs.run.directory import Run, run_at
from openrs.run.files import disk_full_said
from openrs.run.libraries import quiet
from openrs.run.progress import Progress


def targets_of_run(run: Run, recipe: Recipe) -> list[Target]:
    """The run's base as step 0 and its checkpoints by the rule that the recipe fixed before training: last, or all."""
    base = str(run.path / "base") if recipe.model.made is not None else recipe.model.name
    dtype, code = recipe.model.dtype, recipe.model.trust_remote_code
    found = [Target(name_of(0), base, recipe.model.revision, 0, dtype, code)]
    folders = checkpoints.list_complete(run.checkpoints)
    every = int(grpo_value(recipe, "save_steps"))
    kept = folders[-1:] if recipe.evaluation.checkpoints == "last" else checkpoints.scheduled(folders, every)
    return found + [
        Target(f.name, str(adapters.plain(run, recipe, f)), None, checkpoints.step_of(f), dtype, code) for f in kept
    ]


def name_of(step: int) -> str:
    return f"step-{step:06d}"


def evaluate_model(
    model: str,
    protocol: str | None,
    options: Mapping[str, Any],
    *,
    revision: str | None,
    dtype: str | None,
    keep_in: str | None,
    shard: str | None,
    trust_remote_code: bool,
) -> list[dict[str, Any]]:
    """`openrs evaluate`: a run's base and checkpoints under its recipe's evaluation, or one model under the defaults.

    `options` are the settings of the command line. Evaluations of a run stay in the run, unless `keep_in` names
    another; those of other models go to runs/evaluations. Returns the scores, none for a shard.
    """
    cut = shard_from(shard) if shard is not None else None
    run, recipe, targets = resolved(model, revision, dtype, trust_remote_code=trust_remote_code)
    settings = chosen(recipe.evaluation if recipe is not None else Evaluation(), protocol, options)
    keep = run_at(keep_in) if keep_in is not None else run if recipe is not None else run_at("evaluations")
    quiet()
    progress = Progress()
    apart = len(targets) == 1  # for several, the libraries are imported once, here
    found = []
    with signals.install_handlers(), Judge(judges(), timeout=JUDGE_SECONDS) as judge:
        for target in targets:
            folder = keep.evaluation(target.label)
            with disk_full_said(folder, "draws only what is missing"):
                scores = evaluate(target, settings, folder, progress, judge, shard=cut, apart=apart)
            if scores is not None:
                found.append(scores)
                print_scores(progress, target.label, scores, folder)
            elif cut is not None:
                progress.say(f"shard {shard} is drawn; openrs evaluate --merge {folder} puts all of them together")
    return found


def judges() -> int:
    """Workers of the judge: one processor is left to what draws the samples, which everything waits for."""
    return max(1, min(4, processors() - 1))


def resolved(
    model: str, revision: str | None, dtype: str | None, *, trust_remote_code: bool
) -> tuple[Run, Recipe | None, list[Target]]:
    """The run that `model` is or belongs to (with its recipe), and the models to evaluate. Raises UserError."""
    references = pins.target(model)
    if references is not None:
        if revision is not None:
            raise UserError(f"{model} has its own revision", fix="leave --revision away, or name the repository")
        (ref,) = references
        target = Target(ref.repo, ref.repo, ref.revision, None, dtype or "bfloat16", called=model.replace(":", "-"))
        return run_at("evaluations"), None, [target]
    run = run_at(model)
    recipe = manifest.recipe_of(run)
    if recipe is not None:
        refuse_choice(model, revision, dtype)
        return run, recipe, targets_of_run(run, recipe)
    folder = Path(model)
    if folder.parent.name == "checkpoints" and folder.name.startswith("step-"):
        run = Run(folder.resolve().parent.parent)
        recipe = manifest.recipe_of(run)
        if recipe is not None:
            refuse_choice(model, revision, dtype)
            return run, recipe, [one_checkpoint(run, folder, recipe)]
    if folder.parts[:1] == ("runs",) and not folder.exists():
        raise UserError(f"there is no run {model}", fix="give the name of a folder in runs/, or its path")
    name = model
    if not is_hub_name(model):
        name = local_model(model).resolve().name
    return run, None, [Target(name, model, revision, None, dtype or "bfloat16", trust_remote_code)]


def one_checkpoint(run: Run, folder: Path, recipe: Recipe) -> Target:
    """A checkpoint of a run by its path. Raises UserError when it is not there, or not complete."""
    if not folder.is_dir():
        there = ", ".join(path.name for path in checkpoints.list_complete(folder.parent)) or "none"
        raise UserError(f"there is no checkpoint {folder}", f"complete ones: {there}", "name one of them")
    damage = checkpoints.find_corruption(folder, hashes=False)
    if damage is not None:
        raise UserError(f"the checkpoint {folder} is not complete: {damage}", fix="take another one")
    step, dtype, code = checkpoints.step_of(folder), recipe.model.dtype, recipe.model.trust_remote_code
    return Target(folder.name, str(adapters.plain(run, recipe, folder)), None, step, dtype, code)


def refuse_choice(model: str, revision: str | None, dtype: str | None) -> None:
    if revision is not None or dtype is not None:
        raise UserError(
            f"{model} is a run: its recipe says revision and dtype", fix="leave --revision and --dtype away"
        )


def merge_shards(paths: Sequence[Path], keep_in: str | None, data: str | None) -> None:
    """`openrs evaluate --merge`."""
    quiet()
    progress = Progress()
    for folder, scores in merge(paths, keep_in, data):
        print_scores(progress, scores["model"]["name"], scores, folder)


def rejudge_run(run: str, data: str | None) -> None:
    """`openrs evaluate --rejudge`."""
    quiet()
    progress = Progress()
    with signals.install_handlers(), Judge(timeout=JUDGE_SECONDS) as judge:
        for one in rejudge(run, data, judge, progress):
            print_scores(progress, one.scores["model"]["name"], one.scores, one.folder)
            progress.say(
                f"of {one.samples} verdicts, {one.changed} of lighteval's and {one.strict_changed} of the strict"
                " judge's are others than before"
            )


def print_scores(progress: Progress, name: str, scores: Mapping[str, Any], folder: Path) -> None:
    for benchmark, score in scores["benchmarks"].items():
        progress.say(f"{name}, {benchmark}: {format_score(score)}")
    answers = [change for change in scores["inputs"]["changes"] if change["what"] == "answer"]
    if answers:
        said = f"{len(answers)} answers are not the recorded ones, e.g. of {answers[0]['id']}"
        progress.say(f"{said}: the questions are the paper's, the score may not be")
    progress.say(f"samples and scores: {folder}")

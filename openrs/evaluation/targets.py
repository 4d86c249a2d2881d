"""What `openrs evaluate MODEL` may name: a model folder, a hub repository, one of the paper's checkpoints, a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from openrs.config.names import is_hub_name
from openrs.config.schema import Evaluation, Model, Recipe
from openrs.errors import UserError
from openrs.evaluation.plan import Target
from openrs.evaluation.protocols import chosen
from openrs.evaluation.rejudge import rejudge
from openrs.evaluation.run import JUDGE_SECONDS, evaluate
from openrs.evaluation.scores import print_scores
from openrs.evaluation.shards import merge, shard_from
from openrs.hub import adapters, pins
from openrs.hub.models import config_of, local_model
from openrs.rewards.grading import Judge, processors
from openrs.run import checkpoints, manifest, retention, signals
from openrs.run.confined import refuse_links_out
from openrs.run.directory import Run, existing_run, refuse_no_place_for_a_run, run_at
from openrs.run.disk_faults import faults_explained
from openrs.run.folders import Kind, declaration, kind_of
from openrs.run.libraries import quiet
from openrs.run.progress import Progress


def base_of_run(run: Run, recipe: Recipe, *, trust_remote_code: bool) -> Target:
    """What the run starts from, as step 0.

    `trust_remote_code` is never the recipe's own when that was found in a folder: only whoever gives the command may
    let a model's code run.
    """
    base = str(run.path / "base") if recipe.model.toy is not None else recipe.model.name
    return Target(checkpoints.step_name(0), base, recipe.model.revision, 0, recipe.model.dtype, trust_remote_code)


def targets_of_run(run: Run, recipe: Recipe, *, trust_remote_code: bool) -> list[Target]:
    """The run's base and its checkpoints by the rule that the recipe fixed before training: last, or all."""
    dtype, trust = recipe.model.dtype, trust_remote_code
    targets = [base_of_run(run, recipe, trust_remote_code=trust)]
    folders = {checkpoints.step_of(folder): folder for folder in checkpoints.list_complete(run.checkpoints)}
    for step in retention.evaluated(recipe, list(folders)):
        model = str(adapters.plain(run, recipe, folders[step], trust))
        targets.append(Target(folders[step].name, model, None, step, dtype, trust))
    return targets


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
) -> None:
    """`openrs evaluate`: a run's base and checkpoints under its recipe's evaluation, or one model under the defaults.

    `options` are the settings of the command line. Evaluations of a run stay in the run, unless `keep_in` names
    another; those of other models go to runs/evaluations.
    """
    cut = shard_from(shard) if shard is not None else None
    run, recipe, targets = resolved(model, revision, dtype, trust_remote_code=trust_remote_code)
    settings = chosen(recipe.evaluation if recipe is not None else Evaluation(), protocol, options)
    keep = run_at(keep_in) if keep_in is not None else run
    refuse_no_place_for_a_run(keep)
    refuse_links_out(keep.path)
    quiet()
    progress = Progress()
    apart = len(targets) == 1  # for several, the libraries are imported once, here
    with signals.install_handlers(), Judge(judges(), timeout=JUDGE_SECONDS) as judge:
        for target in targets:
            folder = keep.evaluation(target.label)
            with faults_explained(folder, "generates only what is missing"):
                scores = evaluate(target, settings, folder, progress, judge, shard=cut, apart=apart)
            if scores is not None:
                print_scores(progress, target.label, scores, folder)
            elif cut is not None:
                progress.say(f"shard {shard} is generated; openrs evaluate --merge {folder} puts all of them together")


def judges() -> int:
    """Workers of the judge: one processor is left to what draws the samples, which everything waits for."""
    return max(1, min(4, processors() - 1))


def resolved(
    model: str, revision: str | None, dtype: str | None, *, trust_remote_code: bool
) -> tuple[Run, Recipe | None, list[Target]]:
    """The run that keeps the evaluation, its recipe where `model` is or belongs to it, and the models to evaluate.

    What a folder is, it declares itself (openrs/run/folders.py). Raises UserError.
    """
    references = pins.target(model)
    if references is not None:
        if revision is not None:
            raise UserError(f"{model} has its own revision", fix="leave --revision away, or name the repository")
        (ref,) = references
        target = Target(
            ref.repo, ref.repo, ref.revision, None, dtype or "bfloat16",
            called=model.replace(":", "-"), cpu_dtype=dtype or "float32",
        )  # fmt: skip
        return run_at("evaluations"), None, [target]
    folder = next((path for path in (run_at(model).path, Path(model)) if kind_of(path) is not None), Path(model))
    kind, owner = kind_of(folder), run_of(folder)
    if kind is Kind.RUN or owner is not None:
        if revision is not None or dtype is not None:
            what = f"{model} is a run: its recipe says revision and dtype"
            raise UserError(what, fix="leave --revision and --dtype away")
        run = owner or existing_run(f"{folder}/")
        recipe = manifest.recipe_of(run)
        assert recipe is not None  # existing_run looked
        if owner is None:
            return run, recipe, targets_of_run(run, recipe, trust_remote_code=trust_remote_code)
        return run, recipe, [one_checkpoint(run, folder, recipe, trust_remote_code=trust_remote_code)]
    if folder.parts[:1] == ("runs",) and not folder.exists():
        raise UserError(f"there is no run {model}", fix="give the name of a folder in runs/, or its path")
    if kind is Kind.CHECKPOINT:
        refuse_damaged(folder)
    name, path = model, model if kind is None else str(folder)
    if not is_hub_name(path):
        name = name_of_folder(local_model(path))
    target = Target(
        name, path, revision, None, dtype or dtype_of(folder, kind), trust_remote_code, cpu_dtype=dtype or "float32"
    )
    return run_at("evaluations"), None, [target]


def run_of(folder: Path) -> Run | None:
    """The run to which a folder belongs as one of its checkpoints, by where it is; None for any other folder."""
    place = folder.absolute().parent
    if place.name != "checkpoints" or not folder.name.startswith("step-") or kind_of(place.parent) is not Kind.RUN:
        return None
    return existing_run(f"{place.parent}/")


def name_of_folder(folder: Path) -> str:
    """What a model of no run is called in results: its folder's name, with that of the run before an export's."""
    folder = folder.resolve()
    return f"{folder.parent.parent.name}-{folder.name}" if folder.parent.name == "export" else folder.name


def dtype_of(folder: Path, kind: Kind | None) -> str:
    """The default of --dtype: an export is evaluated in its run's, as its checkpoint is; one that does not say it, in
    that of its weights. Any other model in the paper's, bfloat16."""
    declared: list[Any] = []
    if kind is Kind.EXPORT:
        declared = [declaration(folder, kind).get("dtype"), config_of(folder).get("dtype")]
    known = get_args(Model.model_fields["dtype"].annotation)
    return next((str(dtype) for dtype in declared if dtype in known), "bfloat16")


def one_checkpoint(run: Run, folder: Path, recipe: Recipe, *, trust_remote_code: bool) -> Target:
    """A checkpoint of a run by its path. Raises UserError when it is not there, or not complete."""
    if not folder.is_dir():
        there = ", ".join(path.name for path in checkpoints.list_complete(folder.parent)) or "none"
        raise UserError(f"there is no checkpoint {folder}", f"complete ones: {there}", "name one of them")
    refuse_damaged(folder)
    model = adapters.plain(run, recipe, folder, trust_remote_code)
    step, dtype = checkpoints.step_of(folder), recipe.model.dtype
    return Target(folder.name, str(model), None, step, dtype, trust_remote_code)


def refuse_damaged(checkpoint: Path) -> None:
    damage = checkpoints.find_corruption(checkpoint)
    if damage is not None:
        raise UserError(f"the checkpoint {checkpoint} is not complete: {damage}", fix="take another one")


def merge_shards(paths: Sequence[Path], keep_in: str | None, data: str | None) -> None:
    """`openrs evaluate --merge`."""
    quiet()
    progress = Progress()
    for folder, scores in merge(paths, keep_in, data):
        print_scores(progress, scores["model"]["name"], scores, folder)


def rejudge_run(run: str, data: str | None) -> None:
    """`openrs evaluate --rejudge`."""
    quiet()
    with signals.install_handlers(), Judge(timeout=JUDGE_SECONDS) as judge:
        rejudge(run, data, judge, Progress())

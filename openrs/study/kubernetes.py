"""A study as one Indexed Job: index i runs part i, on a volume that all Pods see. Contacts no server, imports no torch.

Parts need nothing of each other (jobs.independent), so they run in any order and side by side; inside a part jobs and
looks follow one another as on one machine. All write one study.json, one at a time (state.alone).
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from openrs.cluster import jobs as pods
from openrs.cluster.sizes import SLACK, Sizes, sizes_of
from openrs.config.load import load, to_yaml
from openrs.config.schema import Recipe
from openrs.config.yaml_lines import dump_yaml, read_yaml
from openrs.errors import UserError
from openrs.hub import pins
from openrs.outside import is_file
from openrs.run.units import GIB
from openrs.study.jobs import Job, Machine, independent, recipe_of, references_of, shape_of_target
from openrs.study.run import Limits, planned
from openrs.study.settings import STUDIES, Study, place_of_run

ROOM = 1.35  # of a volume / what is known to be written


def build_study_manifests(
    request: Callable[[Recipe, str], pods.JobRequest],
    study: Study,
    file: Path,
    *,
    machine: Machine,
    limits: Limits,
    also: Sequence[str],
    choice: Sequence[str],
    overrides: Sequence[str],
) -> pods.JobManifests:
    """The claim and the Job of a study.

    request: the Job's request, given a recipe and the manifest that it is made from. choice: the options that choose
    the jobs, as words. Raises UserError for what Kubernetes does not accept and for files that exist only here.
    """
    jobs = planned(study, file, machine, limits, also)
    parts = independent(study, jobs)
    if not parts:
        raise UserError("nothing is planned", "no job fits --budget and --hours", "give more of them")
    recipes = {
        job.entry: _on(machine, recipe_of(study.trainings[job.entry], job.seed or 0, file.parent, elsewhere=True))
        for job in jobs
        if job.training
    }
    sizes = {entry: sizes_of(recipe) for entry, recipe in recipes.items()}
    largest = max(recipes, key=lambda entry: _gib(sizes[entry].memory), default=None)
    recipe = _on(machine, load("exp3", elsewhere=True)) if largest is None else recipes[largest]
    asked = request(recipe, "exp3" if machine.gpus else "demo")
    made = pods.build_manifests(asked)
    made.notes.extend(note for one in recipes.values() for note in pods.local_files(one) if note not in made.notes)
    _refuse_local(study, jobs)
    named, files = _files(study, file)
    sets = [word for change in overrides for word in ("--set", change)]
    until = [] if limits.until_usd is None else ["--until-usd", f"{limits.until_usd:g}"]
    _containers(
        made.job["spec"]["template"],
        ["fetch", named, "--quick", *sets] if references_of(study, file.parent) else None,
        ["reproduce", named, "--run", asked.name, *choice, *sets, *until],
        len(parts),
    )
    pods.set_image(made.job["spec"]["template"]["spec"], asked.image)
    spec = made.job["spec"]
    spec["backoffLimitPerIndex"] = spec.pop("backoffLimit")
    spec |= {"completionMode": "Indexed", "completions": len(parts), "parallelism": min(limits.at_once, len(parts))}
    spec["podFailurePolicy"]["rules"][0]["action"] = "FailIndex"  # what one part is refused for, others may not be
    spec["activeDeadlineSeconds"] = _deadline(spec["activeDeadlineSeconds"], jobs, limits)
    made.job["metadata"]["annotations"] = {pods.HASH: _hash(study, files)}
    pods.put_files(made.job, files)
    if made.claim is not None:
        made.claim["spec"]["resources"]["requests"]["storage"] = f"{_storage(study, jobs, sizes)}Gi"
        if limits.at_once > 1:
            made.claim["spec"]["accessModes"] = ["ReadWriteMany"]
    if limits.at_once > 1:
        made.notes.append("Pods on several nodes need a volume that all of them mount, with flock between nodes")
    return made


def _containers(template: pods.Object, fetch: list[str] | None, run: list[str], parts: int) -> None:
    """The commands; NCCL's measurement belongs to one recipe and is left out."""
    pod, labels = template["spec"], template["metadata"]["labels"]
    pod.pop("initContainers", None)
    labels.pop(pods.FETCHES, None)
    if fetch is not None:
        pod["initContainers"] = [pods.fetcher() | {"args": [pods.literal(word) for word in fetch]}]
        labels[pods.FETCHES] = "true"
    pod["containers"][0]["args"] = [*map(pods.literal, run), "--part", f"$(JOB_COMPLETION_INDEX)/{parts}"]


def _on(machine: Machine, recipe: Recipe) -> Recipe:
    """The recipe on the study's machine, for the sizes of its Pods."""
    hardware = recipe.hardware.model_copy(update={"gpu": machine.gpu.name, "gpus": machine.gpus})
    return recipe.model_copy(update={"hardware": hardware})


def _refuse_local(study: Study, jobs: Sequence[Job]) -> None:
    models = [("model", study.evaluations[job.entry].model) for job in jobs if not job.training]
    named = [pair for pair in models if pins.target(pair[1]) is None]
    if study.evaluation.data is not None:
        named.append(("evaluation.data", study.evaluation.data))
    benchmarks = dict.fromkeys(name for one in study.evaluations.values() for name in one.samples)
    named += [("samples", name) for name in benchmarks if name.endswith((".yaml", ".yml"))]
    pods.refuse_files("the study", named)


def _files(study: Study, file: Path) -> tuple[str, dict[str, tuple[str, str]]]:
    """How the Pods name the study, and the files of the user's own that they need: the study, the recipes beside it."""
    if file.parent == STUDIES:
        return file.stem, {}
    texts = {file.name: dump_yaml(read_yaml(file)[0])}  # without its comments: nobody looked for secrets in them
    for name in dict.fromkeys(train.recipe for train in study.trainings.values()):
        beside = file.parent / name
        if beside.suffix in {".yaml", ".yml"} and is_file(beside):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise UserError(
                    f"{name} is not below the folder of {file}", "the Pods get both in one", "copy it there"
                )
            texts[name] = to_yaml(load(str(beside), elsewhere=True))
    files = {f"openrs/file-{i}": (name, text) for i, (name, text) in enumerate(texts.items())}
    return str(PurePosixPath(pods.IN_POD).parent / file.name), files


def _hash(study: Study, files: Mapping[str, tuple[str, str]]) -> str:
    """What another submission is compared with: every setting, of the recipes beside the study, too."""
    recipes = sorted(list(files.values())[1:])
    return hashlib.sha256(json.dumps([study.hash, recipes]).encode()).hexdigest() if recipes else study.hash


def _deadline(least: int, jobs: Sequence[Job], limits: Limits) -> int:
    """Seconds. --until-hours as it is: at its end Pods get SIGTERM, and save what they have."""
    if limits.until_hours is not None:
        return math.ceil(3600 * limits.until_hours)
    hours = sum(job.hours.expected for job in jobs if job.hours is not None)
    return max(least, math.ceil(SLACK * hours / limits.at_once) * 3600)


def _storage(study: Study, jobs: Sequence[Job], sizes: Mapping[str, Sizes]) -> int:
    """GiB: every run at its fullest, and the weights of all models: `openrs fetch` brings those of the whole study."""
    runs = {
        place_of_run(study, job.entry, job.seed or 0): _gib(sizes[job.entry].storage) for job in jobs if job.training
    }
    models = {one.model: 2 * shape_of_target(one).parameters for one in study.evaluations.values()}
    return sum(runs.values()) + math.ceil(ROOM * sum(models.values()) / GIB)


def _gib(text: str | None) -> int:
    return int(text.removesuffix("Gi")) if text else 0

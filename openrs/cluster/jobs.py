"""The objects of a Job: a manifest of k8s/ with a recipe, a run's name and an image applied. Contacts no server.

The manifest is parsed and changed as objects. For exp1, exp2, exp3 and demo as they are, the result differs from the
file only in the image and in two annotations (a test says so).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from openrs.cluster.sizes import Sizes, sizes_of
from openrs.config.load import packaged, to_yaml
from openrs.config.names import is_hub_name
from openrs.config.schema import Recipe
from openrs.config.yaml_lines import dump_yaml, read_yaml
from openrs.errors import UserError
from openrs.hub.pins import references
from openrs.planner.gpus import TABLE, find

Object = dict[str, Any]

MANIFESTS = Path(__file__).parent / "k8s"
PLACEHOLDER = "ghcr.io/OWNER/openrs@sha256:" + 64 * "0"
FETCHES = "openrs-fetches"  # label of Pods that the network policy lets reach the hub
HASH, RECIPE = "openrs/recipe-sha256", "openrs/recipe"  # annotations of the Job
IN_POD = "/recipe/recipe.yaml"
DATA = "/data"  # where the claim is mounted
LONGEST_NAME = 46  # of a run: openrs-<run>-preflight and the names of indexed Pods have at most 63 characters

# What an image's name may look like (distribution's reference grammar, without its rarer forms).
_IMAGE = re.compile(
    r"[a-z0-9]+([._:-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The options of `openrs cluster submit`. Fields that are None are as in the manifest.

    named: the recipe as it was named: packaged, or a file. claim: an existing claim to use. products: values of the
    node label nvidia.com/gpu.product.
    """

    recipe: Recipe
    named: str
    overrides: Sequence[str] = ()
    run: str | None = None
    image: str = PLACEHOLDER
    verb: Literal["reproduce", "train"] = "reproduce"
    claim: str | None = None
    storage_class: str | None = None
    queue: str | None = None
    pull_secret: str | None = None
    products: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The run's name; also the claim's and the Job's, after `openrs-`."""
        return self.run or Path(self.named).stem


@dataclass(frozen=True, slots=True)
class JobManifests:
    """claim is None when an existing one is used. notes: messages for the user."""

    claim: Object | None
    job: Object
    notes: list[str] = field(default_factory=list)

    @property
    def objects(self) -> list[Object]:
        return [self.job] if self.claim is None else [self.claim, self.job]


def job_name(run: str) -> str:
    return f"openrs-{run}"


def manifest(name: str) -> list[Object]:
    """The objects of k8s/job-NAME.yaml, as kubectl would read them."""
    path = MANIFESTS / name / "job.yaml"
    if not path.is_file():
        raise UserError(
            f"the manifests of k8s/ are missing ({path})",
            "this installation of openrs was built without them",
            "install openrs from a whole checkout, or from its wheel",
        )
    read = [thing for thing in yaml.safe_load_all(path.read_text(encoding="utf-8")) if thing is not None]
    # A YAML alias is one object in several places: a round trip through JSON copies it.
    copied: list[Object] = json.loads(json.dumps(read))
    return copied


def build_manifests(request: JobRequest) -> JobManifests:
    """The claim and the Job for a recipe. Raises UserError for names that Kubernetes does not accept, and for a recipe
    that needs files of this machine.
    """
    _check_names(request)
    notes = local_files(request.recipe)
    on_gpus = request.recipe.hardware.gpus > 0
    own = request.named in packaged() and (MANIFESTS / request.named).is_dir()
    template = request.named if own else "exp3" if on_gpus else "demo"
    claim, job = manifest(template)
    _rename(claim, job, request)
    pod = job["spec"]["template"]["spec"]
    _containers(pod, request)
    labels = job["spec"]["template"]["metadata"]["labels"]
    labels.pop(FETCHES, None)
    if references(request.recipe):
        labels[FETCHES] = "true"
    _recipe(job, request)
    set_image(pod, request.image)
    notes += _resize(claim, job, sizes_of(request.recipe))
    if on_gpus:
        affinity = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        by_product = affinity["nodeSelectorTerms"][0]["matchExpressions"][0]  # nvidia.com/gpu.product in ...
        by_product["values"] = list(request.products) or labels_of(request.recipe.hardware.gpu)
    if request.queue is not None:
        job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = request.queue
    if request.pull_secret is not None:
        pod["imagePullSecrets"] = [{"name": request.pull_secret}]
    if request.storage_class is not None:
        claim["spec"]["storageClassName"] = request.storage_class
    if "@sha256:" not in request.image:
        notes.append(
            f"the image {request.image} is named by a tag, which can move; name it by digest to record what ran"
        )
    return JobManifests(None if request.claim is not None else claim, job, notes)


def to_text(objects: Sequence[Object]) -> str:
    """As YAML: exactly what is sent."""
    return "---\n".join(map(dump_yaml, objects))


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_names(request: JobRequest) -> None:
    name = request.name
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) is None or len(name) > LONGEST_NAME:
        raise UserError(
            f"{name} cannot be the name of a run in a cluster",
            f"Kubernetes allows lower-case letters, digits and -, here at most {LONGEST_NAME} characters",
            "choose another with --run",
        )
    if _IMAGE.fullmatch(request.image) is None and request.image != PLACEHOLDER:
        raise UserError(
            f"{request.image} is not a valid image name",
            fix="e.g. --image ghcr.io/you/openrs@sha256:<64 hexadecimal digits>",
        )


def local_files(recipe: Recipe) -> list[str]:
    """Refuse files that exist only on this machine; note what must be in the image."""
    named = {
        "model.name": [recipe.model.name] if recipe.model.toy is None else [],
        "data.source": [recipe.data.source] if recipe.data.source != "toy-sums" else [],
        "evaluation.data": [recipe.evaluation.data] if recipe.evaluation.data is not None else [],
        "evaluation.benchmarks": [name for name in recipe.evaluation.benchmarks if name.endswith((".yaml", ".yml"))],
    }
    refuse_files("the recipe", [(key, path) for key, paths in named.items() for path in paths])
    modules = [function.name for function in recipe.rewards.functions if ":" in function.name]
    return [f"rewards from your own code ({', '.join(modules)}) must be in the image"] if modules else []


def refuse_files(what: str, named: Sequence[tuple[str, str]]) -> None:
    """Raises UserError where a setting (key and value) names a file that no Pod can read."""
    here = [f"{key}: {path}" for key, path in named if not is_hub_name(path) and not path.startswith(f"{DATA}/")]
    if here:
        raise UserError(
            f"{what} names files of this machine: {'; '.join(here)}",
            "a Pod cannot read them",
            f"name a hub repository, or copy them into the claim and use paths below {DATA}/",
        )


# --- changes ----------------------------------------------------------------------------------------------------------


def _rename(claim: Object, job: Object, request: JobRequest) -> None:
    """Replace the manifest's name by the run's everywhere."""
    name = request.name
    for thing in (claim, job):
        thing["metadata"]["name"] = job_name(name)
        thing["metadata"]["labels"]["app.kubernetes.io/instance"] = name
    template = job["spec"]["template"]
    template["metadata"]["labels"]["app.kubernetes.io/instance"] = name
    for volume in template["spec"]["volumes"]:
        if "persistentVolumeClaim" in volume:
            volume["persistentVolumeClaim"]["claimName"] = request.claim or job_name(name)


def _containers(pod: Object, request: JobRequest) -> None:
    """Set the commands, and drop init containers that the recipe does not need (nothing to fetch, a single GPU)."""
    recipe = IN_POD if request.named not in packaged() else request.named
    changes = [word for change in request.overrides for word in ("--set", change)] if recipe != IN_POD else []
    run = ["--run", request.name]
    commands = {
        "fetch": ["fetch", recipe, *changes],
        "nccl": ["doctor", "nccl", recipe, *changes, *run],
        "train": [request.verb, recipe, *changes, *run],
    }
    first = {container["name"]: container for container in pod.get("initContainers", [])}
    if not references(request.recipe):
        first.pop("fetch", None)
    elif "fetch" not in first:  # a recipe for a CPU that needs the hub
        first = {"fetch": fetcher(), **first}
    if request.recipe.hardware.gpus < 2:
        first.pop("nccl", None)
    pod.pop("initContainers", None)
    containers = pod.pop("containers")
    if first:
        pod["initContainers"] = list(first.values())
    pod["containers"] = containers
    for container in [*first.values(), *containers]:
        container["args"] = [literal(word) for word in commands[container["name"]]]


def fetcher() -> Object:
    """The container that fetches from the hub, for a Pod whose manifest has none."""
    whole: list[Object] = manifest("exp3")[1]["spec"]["template"]["spec"]["initContainers"]
    return next(container for container in whole if container["name"] == "fetch")


def literal(word: str) -> str:
    """Escape a word for the kubelet, which replaces $(NAME) in args and reads $$ as $."""
    return word.replace("$(", "$$(")


def _recipe(job: Object, request: JobRequest) -> None:
    """The resolved recipe as an annotation, so that two submissions can be compared; a file of the user's own also goes
    to the Pod, as a file made from its annotation, so that the Job needs no second object.
    """
    text = to_yaml(request.recipe)
    job["metadata"]["annotations"] = {HASH: request.recipe.hash, RECIPE: text}
    put_files(job, {} if request.named in packaged() else {RECIPE: (Path(IN_POD).name, text)})


def put_files(job: Object, files: Mapping[str, tuple[str, str]]) -> None:
    """Files of the user's own, below /recipe in every container: annotation of the Pod -> path and text.

    Raises UserError when an object cannot hold them.
    """
    if sum(len(text.encode()) for _, text in files.values()) > 100_000:
        raise UserError(
            "the recipe is larger than 100 kB", "an object's annotations hold 256 kB", "shorten its prompts"
        )
    if not files:
        return
    template = job["spec"]["template"]
    template["metadata"].setdefault("annotations", {}).update({key: text for key, (_, text) in files.items()})
    items = [
        {"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{key}']"}} for key, (path, _) in files.items()
    ]
    template["spec"]["volumes"].append({"name": "recipe", "downwardAPI": {"items": items}})
    for container in _all_containers(template["spec"]):
        container["volumeMounts"].append({"name": "recipe", "mountPath": str(Path(IN_POD).parent), "readOnly": True})


def set_image(pod: Object, image: str) -> None:
    for container in _all_containers(pod):
        container["image"] = image
        for variable in container["env"]:
            if variable["name"] == "OPENRS_IMAGE_DIGEST":
                variable["value"] = image


def _resize(claim: Object, job: Object, sizes: Sizes) -> list[str]:
    """Set resources and time limits from the plan. Time limits only grow: the manifest's suit the paper's recipes."""
    spec = job["spec"]
    pod = spec["template"]["spec"]
    if sizes.storage is not None:
        claim["spec"]["resources"]["requests"]["storage"] = sizes.storage
    if sizes.deadline is not None:
        spec["activeDeadlineSeconds"] = max(spec["activeDeadlineSeconds"], sizes.deadline)
    if sizes.grace is not None:
        pod["terminationGracePeriodSeconds"] = max(pod["terminationGracePeriodSeconds"], sizes.grace)
    for volume in pod["volumes"]:
        if volume["name"] == "shm" and sizes.shm is not None:
            volume["emptyDir"]["sizeLimit"] = sizes.shm
    changed = {"cpu": sizes.cpu, "memory": sizes.memory}
    if sizes.gpus:
        changed["nvidia.com/gpu"] = str(sizes.gpus)
    for container in _all_containers(pod):
        if container["name"] != "fetch":
            for kind in ("requests", "limits"):
                container["resources"][kind] |= {name: value for name, value in changed.items() if value is not None}
    return list(sizes.notes)


def _all_containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def labels_of(gpu: str) -> list[str]:
    """gpu-feature-discovery's labels for a recipe's GPU: nvidia-smi's name with - for spaces. Raises UserError."""
    row = read_yaml(TABLE)[0].get(find(gpu).name)
    if row is None:
        raise UserError(
            f"the node label of the GPU {gpu} is not known",
            fix="give it with --gpu-product LABEL, as listed by: kubectl get nodes -L nvidia.com/gpu.product",
        )
    return [_label(alias) for alias in row["names"] if not alias.isdigit()]


def _label(alias: str) -> str:
    words = {"geforce": "GeForce", "ada": "Ada", "generation": "Generation", "pcie": "PCIe"}
    return "-".join(["NVIDIA", *(words.get(word, word.upper()) for word in alias.split())])

"""The manifests of k8s/ as Python objects, for the tests of them."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
K8S = ROOT / "k8s"
VERSIONS = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
JOBS = ["exp1", "exp2", "exp3", "exp3-seeds", "evaluate", "demo"]
GPU_JOBS = [name for name in JOBS if name != "demo"]
NEWEST = VERSIONS[-1]

Object = dict[str, Any]


def read(path: Path) -> list[Object]:
    return [thing for thing in yaml.safe_load_all(path.read_text(encoding="utf-8")) if thing]


def job(name: str) -> Object:
    return next(thing for thing in read(K8S / f"job-{name}.yaml") if thing["kind"] == "Job")


def pod_of(thing: Object) -> Object:
    found: Object = thing["spec"]["template"]["spec"]
    return found


def all_containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def plain_files() -> list[Path]:
    """Every file of k8s/ whose kinds Kubernetes itself has."""
    skipped = ("kustomization.yaml",)
    return sorted(
        path
        for path in K8S.rglob("*.yaml")
        if path.name not in skipped and not path.is_symlink() and "multinode" not in path.parts
    )


def multinode() -> dict[str, Object]:
    return {thing["kind"]: thing for path in sorted((K8S / "multinode").glob("*.yaml")) for thing in read(path)}


def pod_templates() -> dict[str, Object]:
    """Every Pod template there is, by where it stands."""
    found = {f"job-{name}": job(name)["spec"]["template"] for name in JOBS}
    there = multinode()
    for kind, sets in (
        ("JobSet", there["JobSet"]["spec"]),
        ("TrainingRuntime", there["TrainingRuntime"]["spec"]["template"]["spec"]),
    ):
        for one in sets["replicatedJobs"]:
            found[f"{kind} {one['name']}"] = one["template"]["spec"]["template"]
    return found

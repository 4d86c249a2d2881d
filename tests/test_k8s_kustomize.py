"""What kubectl makes of k8s/: every base, overlay and component builds offline, and into what it says."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from k8s_files import (
    K8S,
    NEWEST,
    Object,
    all_containers,
    job,
    pod_of,
    read,
)

pytestmark = pytest.mark.slow

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="not installed (./scripts/setup --dev)")


needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def kustomized(folder: Path) -> list[Object]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def folders(*names: str) -> list[Path]:
    return sorted(path.parent for name in names for path in (K8S / name).rglob("kustomization.yaml"))


@needs_kubectl
@pytest.mark.parametrize(
    "folder", folders("base", "overlays", "namespace"), ids=lambda path: str(path.relative_to(K8S))
)
def test_every_base_and_overlay_builds_offline_and_is_valid(folder: Path) -> None:
    things = kustomized(folder)
    for thing in things:
        kubernetes_validate.validate(thing, NEWEST, strict=True)
    if "base" in folder.parts:
        assert things == sorted(read(folder / "job.yaml"), key=things.index)


@needs_kubectl
@pytest.mark.parametrize("name", sorted(path.parent.name for path in (K8S / "components").glob("*/kustomization.yaml")))
@pytest.mark.parametrize("base", ["exp3", "evaluate"])
def test_every_component_goes_with_every_kind_of_job(name: str, base: str, tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s", symlinks=True)
    overlay = tmp_path / "k8s" / "overlays" / "tried"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        f"resources: [../../base/{base}]\ncomponents: [../../components/{name}]\n", encoding="utf-8"
    )
    things = {thing["kind"]: thing for thing in kustomized(overlay)}
    for thing in things.values():
        kubernetes_validate.validate(thing, NEWEST, strict=True)
    changed, claim = things["Job"], things["PersistentVolumeClaim"]
    pod = pod_of(changed)
    assert changed != job(base) or claim != read(K8S / f"job-{base}.yaml")[0]  # it does something
    match name:
        case "image":
            image = "registry.example.com/openrs@sha256:" + 64 * "1"
            assert {container["image"] for container in all_containers(pod)} == {image}
            assert {"name": "OPENRS_IMAGE_DIGEST", "value": image} in pod["containers"][0]["env"]
        case "storage-class":
            assert claim["spec"]["storageClassName"] == "fast-ssd"
        case "shared-volume":
            assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
            assert "podAffinity" not in pod["affinity"]
            assert "nodeAffinity" in pod["affinity"]
        case "kueue":
            assert changed["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "openrs"
            assert "kueue.x-k8s.io/queue-name" not in changed["spec"]["template"]["metadata"]["labels"]
        case "pull-secret":
            assert pod["imagePullSecrets"] == [{"name": "openrs-registry"}]
        case "runtime-class":
            assert pod["runtimeClassName"] == "nvidia"
        case _:
            products = json.dumps(pod["affinity"]["nodeAffinity"])
            assert name.split("-")[1].upper() in products
            assert "A40" not in products


@needs_kubectl
def test_the_example_overlay_changes_what_it_says() -> None:
    things = {thing["kind"]: thing for thing in kustomized(K8S / "overlays" / "kueue-a100")}
    assert things["Job"]["metadata"]["namespace"] == "openrs"
    assert things["Job"]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "openrs"
    assert "OWNER" not in json.dumps(things)

"""The image as the unmodified Dockerfile makes it: what is in it, who runs it, that it can be made again."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import TOKEN, Clone, docker

from openrs.run.files import sha256

pytestmark = [pytest.mark.docker, pytest.mark.limits(silence=1800)]  # the first test waits for the build

# As the Kubernetes manifests run it (k8s/base): any volume at /data, nothing else that can be written but /tmp.
AS_IN_KUBERNETES = [
    "run", "--rm", "--read-only", "--user", "10001:10001", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
    "--network", "none", "--tmpfs", "/tmp:exec", "--tmpfs", "/data:mode=1777", "--workdir", "/data",
    "-e", "HOME=/tmp", "-e", "HF_HOME=/data/cache/huggingface",
]  # fmt: skip


def test_the_script_says_how_large_each_layer_is(built: str) -> None:
    print(built[-1500:])  # sizes and time, for the log
    assert re.search(r"openrs:cpu, \d+\.\d\d GB, by layer:", built)
    assert re.search(r"\d+(\.\d+)?GB  the packages of the lock, with their bytecode", built)
    assert re.search(r"\d+(\.\d+)?MB  openrs itself", built)
    assert re.search(r"^built in \d+", built, re.MULTILINE)


def test_it_runs_as_nobody_behind_tini_with_labels_and_health(image: dict[str, Any], clone: Clone) -> None:
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tini", "--", "openrs"]
    assert config["WorkingDir"] == "/data"
    assert config["Healthcheck"]["Test"] == ["CMD", "as-owner", "openrs", "doctor", "--quick"]
    head = subprocess.run(["git", "-C", clone.path, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["version"] == "0.1.0"
    assert labels["revision"] == head.stdout.strip()
    assert labels["openrs.lock"] == "cpu"
    assert labels["openrs.lock.sha256"] == sha256(clone.path / "locks" / "cpu.txt")


def test_its_provenance_is_the_lock_and_nothing_of_cuda(image: dict[str, Any], clone: Clone) -> None:
    facts = json.loads(docker("run", "--rm", "--entrypoint", "cat", "openrs:cpu", "/openrs-provenance.json"))
    assert facts["base"].startswith("nvidia/cuda:13.0.3-cudnn-runtime-ubuntu24.04@sha256:14f6d08d")
    assert facts["lock"] == {"name": "cpu", "sha256": sha256(clone.path / "locks" / "cpu.txt")}
    assert facts["revision"] == image["Config"]["Labels"]["org.opencontainers.image.revision"]
    assert {"tini", "g++", "python3"} <= facts["system_packages"].keys()
    packages = {
        name.lower().replace("_", "-").replace(".", "-"): version for name, version in facts["packages"].items()
    }
    assert packages["torch"] == "2.13.0+cpu"
    assert [name for name in packages if re.match(r"nvidia|cuda|triton|vllm", name)] == []
    locked = re.findall(
        r"^([a-z0-9-]+)==(\S+)(?: ; (.*?))?(?: \\)?$", (clone.path / "locks" / "cpu.txt").read_text(), re.MULTILINE
    )
    for name, version, marker in locked:
        if not marker:
            assert packages[name] == version
    assert packages.keys() - {name for name, *_ in locked} == {"openrs"}


def test_health_and_the_jobs_words_under_the_jobs_restrictions(image: dict[str, Any]) -> None:
    health = docker(*AS_IN_KUBERNETES, "openrs:cpu", "doctor", "--quick")
    assert "user 10001, root file system read-only" in health
    assert re.search(r"ok +packages +\d+ as in lock.txt", health)
    told = docker(*AS_IN_KUBERNETES, "openrs:cpu", "train", "demo", "--dry-run", "--run", "demo")
    assert "max_steps: 200" in told
    # job-evaluate.yaml starts a shell in place of the entry point, and locks with flock.
    shell = docker(*AS_IN_KUBERNETES, "--entrypoint", "tini", "openrs:cpu", "-g", "--", "/bin/sh", "-euc",
                   "flock /data/.merge openrs --version")  # fmt: skip
    assert shell == "openrs 0.1.0"


def test_the_root_cannot_be_written_and_bytecode_is_there(image: dict[str, Any]) -> None:
    imports = "python -v -c 'import openrs.config.load, yaml' 2>&1 | grep -c 'matches .*\\.py$'"
    probe = f"touch /opt/openrs/x 2>&1; {imports}; id -un"
    answer = docker(*AS_IN_KUBERNETES, "--entrypoint", "sh", "openrs:cpu", "-c", probe).splitlines()
    assert "Read-only file system" in answer[0]
    assert int(answer[1]) > 20  # python -v: "# .../__pycache__/x.pyc matches .../x.py"
    assert answer[2] == "openrs"


def layers(clone: Clone, target: str, tag: str, *words: str) -> list[str]:
    options = clone.environment.get("OPENRS_BUILD_OPTIONS", "")
    network = clone.environment.get("OPENRS_BUILD_NETWORK", "default")
    command = f"docker buildx build --load -q --network {network} {options} --target {target} -t {tag}"
    command += f" {' '.join(words)} ."
    ended = clone.sh(command)
    assert ended.code == 0, ended.output
    found: list[str] = json.loads(docker("image", "inspect", tag))[0]["RootFS"]["Layers"]
    docker("image", "rm", tag)
    return found


def test_the_same_sources_give_the_same_layers(image: dict[str, Any], clone: Clone) -> None:
    """A small lock twice without cache, then openrs itself. docs/docker.md tells of the whole CPU image."""
    words = ("--build-arg LOCK=image", "--no-cache-filter dependencies")
    first, second = (layers(clone, "dependencies", f"openrs-same:{number}", *words) for number in (1, 2))
    assert len(first) > 3
    assert first == second
    (clone.path / "openrs" / "__init__.py").touch()  # another clone, another time, the same content
    again = layers(clone, "openrs", "openrs-same:3", "--build-arg LOCK=cpu", "--no-cache-filter project",
                   f"--build-arg REVISION={image['Config']['Labels']['org.opencontainers.image.revision']}",
                   *wheels(clone))  # fmt: skip
    assert again == image["RootFS"]["Layers"]


def wheels(clone: Clone) -> list[str]:
    """As scripts/image finds PyTorch's CPU wheel: the same words, so that the engine's cache knows the stage again."""
    folders = clone.environment.get("PIP_FIND_LINKS", "").split()
    return [f"--build-context wheels={f}" for f in folders if list(Path(f).glob("torch-*+cpu*.whl"))]


def test_no_secret_is_in_history_layers_or_configuration(image: dict[str, Any], clone: Clone) -> None:
    """The token stood in the environment of the build; .env cannot reach it (tests/test_docker_files.py)."""
    assert clone.environment["HF_TOKEN"] == TOKEN
    assert TOKEN not in docker("history", "--no-trunc", "openrs:cpu")
    assert TOKEN not in docker("image", "inspect", "openrs:cpu")
    search = f"set -o pipefail; docker save openrs:cpu | LC_ALL=C grep -a -c -F -e {TOKEN} -e OPENRS_RESTART_PAUSE="
    assert clone.sh(search).output.strip() == "0"  # the second stands in .env.example: no .env is in a layer


def test_the_bill_of_materials_is_cyclonedx(image: dict[str, Any], clone: Clone) -> None:
    ended = clone.sh("./scripts/image --sbom")
    assert ended.code == 0, ended.output[-2000:]
    bill = json.loads((clone.path / "sbom" / "openrs-sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "openrs"
    found = {component["name"]: component["version"] for component in bill["components"]}
    assert (found["torch"], found["transformers"], found["trl"]) == ("2.13.0+cpu", "5.17.0", "1.16.0")
    assert len(found) > 170

"""Objects from recipes: the very manifests of k8s/, and a valid Job for any valid recipe."""

import json
import random
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes import client

from openrs.cluster.jobs import (
    HASH,
    IN_POD,
    RECIPE,
    JobManifests,
    JobRequest,
    build_manifests,
    labels_of,
    literal,
    manifest,
    to_text,
)
from openrs.cluster.submit import recipe_in
from openrs.config.load import load, packaged, to_yaml
from openrs.errors import UserError
from openrs.planner.gpus import known

pytestmark = pytest.mark.slow

IMAGE = "registry.example.com/openrs@sha256:" + 64 * "1"


def containers(made: JobManifests) -> dict[str, Any]:
    pod = made.job["spec"]["template"]["spec"]
    return {one["name"]: one for one in [*pod.get("initContainers", []), *pod["containers"]]}


@pytest.mark.parametrize("name", ["exp1", "exp2", "exp3", "demo"])
def test_a_packaged_recipe_is_the_file_of_k8s_but_for_the_image_and_two_annotations(name: str) -> None:
    made = build_manifests(JobRequest(load(name), name, image=IMAGE))
    claim, job = manifest(name)
    assert made.claim == claim
    assert made.notes == []
    notes = made.job["metadata"].pop("annotations")
    assert notes[HASH] == load(name).hash
    placeholder = job["spec"]["template"]["spec"]["containers"][0]["image"]
    assert made.job == json.loads(json.dumps(job).replace(placeholder, IMAGE))


def test_the_resolved_recipe_travels_with_the_job() -> None:
    recipe = load("exp3", ["grpo.learning_rate=2e-6"])
    assert recipe_in(build_manifests(JobRequest(recipe, "exp3", ["grpo.learning_rate=2e-6"])).job) == recipe


def test_overrides_and_the_runs_name_reach_every_place() -> None:
    changes = ["grpo.learning_rate=2e-6", "training.max_hours=20"]
    made = build_manifests(JobRequest(load("exp3", changes), "exp3", changes, run="lr2", image=IMAGE, verb="train"))
    sets = ["--set", changes[0], "--set", changes[1]]
    assert containers(made)["fetch"]["args"] == ["fetch", "exp3", *sets]
    assert containers(made)["nccl"]["args"] == ["doctor", "nccl", "exp3", *sets, "--run", "lr2"]
    assert containers(made)["train"]["args"] == ["train", "exp3", *sets, "--run", "lr2"]
    assert made.claim is not None
    assert "exp3" not in {made.claim["metadata"]["name"], made.job["metadata"]["name"]}
    assert made.job["metadata"]["name"] == made.claim["metadata"]["name"] == "openrs-lr2"
    assert made.job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/instance"] == "lr2"
    assert made.job["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "openrs-lr2"


def test_the_commands_in_the_pod_are_commands_of_this_openrs() -> None:
    from openrs.cli.main import parser

    for name in ("exp1", "exp3", "demo"):
        made = build_manifests(JobRequest(load(name, ["grpo.seed=7"]), name, ["grpo.seed=7"]))
        for container in containers(made).values():
            parser().parse_args(container["args"])  # SystemExit where it is none


def test_a_recipe_of_the_users_own_goes_with_the_pod_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(load("exp3", ["grpo.learning_rate=3e-6", "title=mine"])))
    recipe = load(str(path))
    made = build_manifests(JobRequest(recipe, str(path), image=IMAGE))
    template = made.job["spec"]["template"]
    assert made.job["metadata"]["name"] == "openrs-mine"
    assert containers(made)["train"]["args"] == ["reproduce", IN_POD, "--run", "mine"]
    written = tmp_path / "recipe.yaml"
    written.write_text(template["metadata"]["annotations"][RECIPE])
    assert load(str(written)) == recipe
    assert template["spec"]["volumes"][-1]["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"] == (
        f"metadata.annotations['{RECIPE}']"
    )
    for container in containers(made).values():
        assert [mount["mountPath"] for mount in container["volumeMounts"]].count("/recipe") == 1


def test_files_of_this_machine_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    recipe = load("exp3", [f"data.source={tmp_path / 'rows.jsonl'}", "data.revision=null"])
    with pytest.raises(UserError, match=r"files of this machine: data\.source: .*rows\.jsonl"):
        build_manifests(JobRequest(recipe, "exp3"))
    build_manifests(JobRequest(load("exp3", ["data.source=/data/rows.jsonl", "data.revision=null"]), "exp3"))


@pytest.mark.parametrize("run", ["Exp3", "exp_3", "-exp3", "exp3-", "x" * 47, "exp3/../etc", ""])
def test_names_that_kubernetes_does_not_take_are_refused(run: str) -> None:
    if run == "":
        return  # the recipe's name then
    with pytest.raises(UserError, match="cannot be the name"):
        build_manifests(JobRequest(load("exp3"), "exp3", run=run))


@pytest.mark.parametrize("image", ["openrs image", "Registry/OpenRS", "x@sha256:12", "$(HOME)", "a b"])
def test_images_without_a_valid_name_are_refused(image: str) -> None:
    with pytest.raises(UserError, match="not a valid image name"):
        build_manifests(JobRequest(load("demo"), "demo", image=image))


def test_a_tag_is_taken_with_a_word_about_it() -> None:
    assert "can move" in build_manifests(JobRequest(load("demo"), "demo", image="localhost:5000/openrs:dev")).notes[0]


def test_the_kubelet_gets_no_variables_to_expand() -> None:
    assert literal("--x=$(HOME) $$(Y) $Z") == "--x=$$(HOME) $$$(Y) $Z"
    made = build_manifests(JobRequest(load("demo", ["title=$(HOME)"]), "demo", ["title=$(HOME)"]))
    assert containers(made)["train"]["args"][3] == "title=$$(HOME)"


def test_gpus_memory_and_disk_follow_the_recipe() -> None:
    two = build_manifests(JobRequest(load("exp3", ["hardware.gpus=2", "grpo.gradient_accumulation_steps=6"]), "exp3"))
    resources = containers(two)["train"]["resources"]
    assert resources["limits"] == resources["requests"]
    assert resources["limits"]["nvidia.com/gpu"] == "2"
    assert resources["limits"]["cpu"] == "8"
    shm = next(one for one in two.job["spec"]["template"]["spec"]["volumes"] if one["name"] == "shm")
    assert shm["emptyDir"]["sizeLimit"] == "8Gi"
    whole = build_manifests(JobRequest(load("exp3", ["training.old_weights_only=false"]), "exp3"))
    assert whole.claim is not None
    assert whole.claim["spec"]["resources"]["requests"]["storage"] == "400Gi"  # 291 GiB as planned, and a third


def test_a_longer_run_gets_more_time_and_a_shorter_one_no_less() -> None:
    deadline = manifest("exp3")[1]["spec"]["activeDeadlineSeconds"]
    long = build_manifests(JobRequest(load("exp3", ["grpo.max_steps=5000"]), "exp3"))
    assert long.job["spec"]["activeDeadlineSeconds"] > 3 * 80 * 3600 > deadline
    short = build_manifests(JobRequest(load("exp3", ["training.stop_after=50"]), "exp3"))
    assert short.job["spec"]["activeDeadlineSeconds"] == deadline


def test_one_gpu_measures_no_links_and_no_hub_needs_no_fetch() -> None:
    one = ["hardware.gpus=1", "hardware.layout=single", "hardware.zero_stage=0", "grpo.gradient_accumulation_steps=12"]
    assert list(containers(build_manifests(JobRequest(load("exp3", one), "exp3")))) == ["fetch", "train"]
    assert list(containers(build_manifests(JobRequest(load("demo"), "demo")))) == ["train"]
    hub = ["model.name=owner/small", f"model.revision={40 * 'a'}", "model.toy=null"]
    assert list(containers(build_manifests(JobRequest(load("demo", hub), "demo")))) == ["fetch", "train"]


def test_gpu_labels_are_those_of_gpu_feature_discovery() -> None:
    assert labels_of("A40") == ["NVIDIA-A40"]
    assert "NVIDIA-A100-SXM4-80GB" in labels_of("A100-80")
    assert "NVIDIA-H100-80GB-HBM3" in labels_of("H100")
    assert labels_of("RTX-4090") == ["NVIDIA-GeForce-RTX-4090"]
    for name in known():
        assert all(re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", label) for label in labels_of(name))
    with pytest.raises(UserError, match="--gpu-product"):
        build_manifests(JobRequest(load("exp3", ["hardware.gpu=B9000"]), "exp3"))
    made = build_manifests(JobRequest(load("exp3", ["hardware.gpu=B9000"]), "exp3", products=["NVIDIA-B9000"]))
    terms = made.job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    assert "NVIDIA-B9000" in str(terms)
    assert "A40" not in str(terms)


# --- any valid recipe gives a valid Job -------------------------------------------------------------------------------


def drawn(seed: int, folder: Path) -> JobRequest:
    """A recipe and options drawn by chance; those that openrs itself refuses are drawn again."""
    dice = random.Random(seed)
    while True:
        name = dice.choice(list(packaged()))
        gpus = dice.choice([1, 2, 3, 4, 6, 8, 12]) if name != "demo" else 0
        changes = [
            f"grpo.max_steps={dice.randint(1, 20_000)}",
            f"grpo.save_steps={dice.randint(1, 50)}",
            f"grpo.max_completion_length={dice.randint(8, 3000)}",
            f"title={dice.choice(['$(HOME)', 'ü: {x}', '- a', '@b', '#', 'true', '2026-01-01'])!r}",
            f"rewards.memory_gib={dice.choice([0.5, 2, 16])}",
            f"model.trust_remote_code={dice.choice(['true', 'false'])}",
        ]
        changes += ["training.keep_every=null"]
        if gpus:
            layout = "single" if gpus == 1 else dice.choice(["colocate", "split"])
            changes += [
                f"hardware.gpus={gpus}",
                f"hardware.layout={layout}",
                f"hardware.gpu={dice.choice(list(known()))}",
                f"grpo.per_device_train_batch_size={dice.choice([1, 2, 3, 6, 12])}",
                f"grpo.gradient_accumulation_steps={dice.choice([1, 2, 3, 4, 6, 12])}",
            ]
        named = name
        if dice.random() < 0.3:
            path = folder / f"own-{seed}.yaml"
            path.write_text(to_yaml(load(name)))
            named = str(path)
        try:
            recipe = load(named, changes)
        except UserError:
            continue
        run = "".join(dice.choice("abc019-") for _ in range(dice.randint(1, 46))).strip("-") or None
        return JobRequest(
            recipe, named, changes, run=run, image=IMAGE, verb=dice.choice(["reproduce", "train"]),
            claim=dice.choice([None, "mine"]), storage_class=dice.choice([None, "fast"]),
            queue=dice.choice([None, "q"]), pull_secret=dice.choice([None, "registry"]),
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(24))
def test_any_valid_recipe_gives_a_valid_job(seed: int, tmp_path: Path) -> None:
    asked = drawn(seed, tmp_path)
    made = build_manifests(asked)
    assert list(yaml.safe_load_all(to_text(made.objects))) == made.objects  # what is printed is what is sent
    version = ["1.31", "1.33", "1.36", "1.37"][seed % 4]
    for thing in made.objects:
        kubernetes_validate.validate(thing, version, strict=True)
        assert through_the_client(thing) == thing
    spec = made.job["spec"]
    pod = spec["template"]["spec"]
    assert len(made.job["metadata"]["name"]) <= 63 - len("-0-abcde")
    assert spec["activeDeadlineSeconds"] > 0
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert pod.get("imagePullSecrets") == ([{"name": "registry"}] if asked.pull_secret else None)
    assert (spec["template"]["metadata"]["labels"].get("openrs-fetches") == "true") == ("fetch" in containers(made))
    mounted = {volume["name"] for volume in pod["volumes"]}
    for container in containers(made).values():
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]  # Guaranteed, and GPUs have to be equal
        assert container["image"] == IMAGE
        assert {mount["name"] for mount in container["volumeMounts"]} <= mounted
        assert all(isinstance(word, str) and "$(" not in word.replace("$$(", "") for word in container["args"])
    train = containers(made)["train"]["resources"]["limits"]
    assert train.get("nvidia.com/gpu", "0") == str(asked.recipe.hardware.gpus)
    shm = next((one["emptyDir"]["sizeLimit"] for one in pod["volumes"] if one["name"] == "shm"), "0Gi")
    assert int(shm.removesuffix("Gi")) < int(train["memory"].removesuffix("Gi"))
    named = {
        rule["onExitCodes"].get("containerName") for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    }
    assert named - {None} <= set(containers(made))


def through_the_client(thing: dict[str, Any]) -> Any:
    """Into the client's own model and back: what it does not know, or names otherwise, would be lost."""
    api = client.ApiClient()

    class Response:
        data = json.dumps(thing)

    kind = {"Job": "V1Job", "PersistentVolumeClaim": "V1PersistentVolumeClaim"}[thing["kind"]]
    return api.sanitize_for_serialization(api.deserialize(Response(), kind))

"""The manifests of k8s/: valid for Kubernetes 1.31 and later, as restricted as they claim, alike where they say so."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from k8s_files import (
    GPU_JOBS,
    JOBS,
    K8S,
    NEWEST,
    VERSIONS,
    all_containers,
    job,
    multinode,
    plain_files,
    pod_of,
    pod_templates,
    read,
)

pytestmark = pytest.mark.slow

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="not installed (./scripts/setup --dev)")


# --- valid ------------------------------------------------------------------------------------------------------------


def test_the_files_that_people_name_are_there() -> None:
    for name in JOBS:
        path = K8S / f"job-{name}.yaml"
        assert path.resolve() == K8S / "base" / name / "job.yaml"
        kinds = [thing["kind"] for thing in read(path)]
        assert kinds == ["PersistentVolumeClaim", "Job"], name  # each complete in itself


@pytest.mark.parametrize("path", plain_files(), ids=lambda path: str(path.relative_to(K8S)))
def test_every_object_is_valid_for_every_version(path: Path) -> None:
    things = read(path)
    assert things
    for thing in things:
        for version in VERSIONS if thing["kind"] == "Job" else ["1.31", NEWEST]:
            kubernetes_validate.validate(thing, version, strict=True)


def test_the_check_finds_a_misspelt_field() -> None:
    wrong = job("exp3")
    wrong["spec"]["backOffLimit"] = 3
    with pytest.raises(Exception, match="backOffLimit"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_clients_own_models_lose_nothing() -> None:
    client = pytest.importorskip("kubernetes", reason="the client is not installed").client
    api = client.ApiClient()
    models = {"Job": "V1Job", "PersistentVolumeClaim": "V1PersistentVolumeClaim", "Namespace": "V1Namespace",
              "NetworkPolicy": "V1NetworkPolicy", "Role": "V1Role", "RoleBinding": "V1RoleBinding",
              "ServiceAccount": "V1ServiceAccount", "ResourceQuota": "V1ResourceQuota",
              "ClusterRole": "V1ClusterRole", "ClusterRoleBinding": "V1ClusterRoleBinding"}  # fmt: skip
    for path in plain_files():
        for thing in read(path):

            class Response:
                data = json.dumps(thing)

            back = api.sanitize_for_serialization(api.deserialize(Response(), models[thing["kind"]]))
            if thing["kind"] == "NetworkPolicy":  # the client sends `_from`
                back = json.loads(json.dumps(back).replace('"_from"', '"from"'))
            assert back == thing, path


# --- what the server would say that no schema says --------------------------------------------------------------------


def test_pod_failure_policies_as_the_api_demands() -> None:
    """Facts checked against a 1.36 server: Never, status of conditions, ordered values, names of containers."""
    for name in JOBS:
        spec = job(name)["spec"]
        assert pod_of(job(name))["restartPolicy"] == "Never"
        assert spec["podReplacementPolicy"] == "Failed"
        names = {one["name"] for one in all_containers(pod_of(job(name)))}
        rules = spec["podFailurePolicy"]["rules"]
        for one in pod_of(job(name))[
            "containers"
        ]:  # 75 is resumed in the Pod: the controller would wait longer each time
            assert name == "evaluate" or one["command"] == ["tini", "--", "until-done", "openrs"]
        assert [rule["action"] for rule in rules] == ["FailJob", "Ignore", "Ignore"]
        assert rules[0]["onExitCodes"] == {"operator": "In", "values": [2]}
        assert rules[1]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert rules[2]["onExitCodes"]["values"] == [75]
        assert rules[2]["onExitCodes"]["containerName"] in names - {"fetch"}
        assert ("backoffLimitPerIndex" in spec) == (spec.get("completionMode") == "Indexed")


def test_requests_are_limits_and_shared_memory_is_within_them() -> None:
    for where, template in pod_templates().items():
        pod = template["spec"]
        shm = [one["emptyDir"] for one in pod["volumes"] if one.get("emptyDir", {}).get("medium") == "Memory"]
        for container in all_containers(pod):
            resources = container["resources"]
            assert resources["requests"] == resources["limits"], where
            assert {"cpu", "memory", "ephemeral-storage"} <= set(resources["limits"]), where
            assert resources["limits"]["cpu"].isdigit(), where  # whole CPUs, or the static CPU manager gives none
            if "nvidia.com/gpu" in resources["limits"]:
                gib = int(resources["limits"]["memory"].removesuffix("Gi"))
                assert gib >= 2 * int(shm[0]["sizeLimit"].removesuffix("Gi")), where
                assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"], where


def test_every_pod_is_restricted() -> None:
    """Pod Security Standards, level restricted (1.37), and a bit more: read-only root, no token, no service links."""
    for where, template in pod_templates().items():
        pod = template["spec"]
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, where
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 10001, where
        assert context["fsGroupChangePolicy"] == "OnRootMismatch", where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert pod["automountServiceAccountToken"] is False, where
        assert pod["enableServiceLinks"] is False, where
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(pod), where
        kinds = {next(key for key in volume if key != "name") for volume in pod["volumes"]}
        assert kinds <= {"persistentVolumeClaim", "emptyDir", "downwardAPI"}, where
        for container in all_containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], where
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", where


def test_the_token_and_the_network_are_fetchs_alone() -> None:
    for where, template in pod_templates().items():
        for container in all_containers(template["spec"]):
            names = {variable["name"] for variable in container["env"]}
            if container["name"].startswith("fetch"):
                assert "HF_HUB_OFFLINE" not in names, where
                token = next(one for one in container["env"] if one["name"] == "HF_TOKEN")
                assert token["valueFrom"]["secretKeyRef"]["optional"] is True, where
                assert "nvidia.com/gpu" not in container["resources"]["limits"], where
            else:
                assert "HF_TOKEN" not in names, where
                assert {"name": "HF_HUB_OFFLINE", "value": "1"} in container["env"], where


def test_images_are_named_by_digest_and_are_placeholders() -> None:
    for where, template in pod_templates().items():
        images = {container["image"] for container in all_containers(template["spec"])}
        assert len(images) == 1, where
        assert re.fullmatch(r"ghcr\.io/OWNER/openrs@sha256:0{64}", images.pop()), where


def test_gpu_jobs_go_to_a40s_and_may_save_a_checkpoint() -> None:
    for name in GPU_JOBS:
        pod = pod_of(job(name))
        rule = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0]
        assert rule["matchExpressions"] == [
            {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-A40"]}
        ]
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    for name in ("exp1", "exp2", "exp3", "exp3-seeds"):
        # the authors' step, and 26.5 GiB at 50 MB/s
        assert pod_of(job(name))["terminationGracePeriodSeconds"] >= 172 + 26.5 * 2**30 / 50e6


# --- alike where they say so ------------------------------------------------------------------------------------------


def test_the_three_experiments_are_one_file_with_three_recipes() -> None:
    third = json.dumps(read(K8S / "job-exp3.yaml"))
    for name in ("exp1", "exp2"):
        assert json.loads(third.replace("exp3", name)) == read(K8S / f"job-{name}.yaml")


def test_seeds_differ_from_exp3_in_what_an_index_needs() -> None:
    pod, seeds = pod_of(job("exp3")), pod_of(job("exp3-seeds"))
    named = json.loads(json.dumps(seeds).replace("openrs-exp3-seeds", "openrs-exp3"))
    for one, other in zip(all_containers(pod), all_containers(named), strict=True):
        assert {**one, "args": 0} == {**other, "args": 0}
    spec = job("exp3-seeds")["spec"]
    assert spec["completionMode"] == "Indexed"
    from openrs.training import launch

    trained = seeds["containers"][0]["args"]
    runs = []
    for index in range(spec["completions"]):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in trained]
        seed = int(words[words.index("--seeds") + 1])
        recipe, run = launch.runs(words[1], [], None, [seed])[0]
        assert recipe.grpo["seed"] == seed
        runs.append(run.path.name)
        nccl = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in seeds["initContainers"][1]["args"]]
        assert nccl[-1] == run.path.name  # NCCL is measured for the run that reads it
    assert runs == ["exp3-seed40", "exp3-seed41", "exp3-seed42"]


def test_commands_are_commands_of_openrs() -> None:
    from openrs.cli.main import parser

    for name in JOBS:
        for container in all_containers(pod_of(job(name))):
            if container.get("command", ["openrs"])[-1] == "openrs":
                words = [word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in container["args"]]
                parser().parse_args(words)


# --- multi-node -------------------------------------------------------------------------------------------------------


def test_multinode_job_templates_are_valid_jobs() -> None:
    """CRDs have no schema offline; what is in them has: each job template, as a Job."""
    there = multinode()
    assert there["JobSet"]["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert there["TrainJob"]["apiVersion"] == there["TrainingRuntime"]["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    for sets in (there["JobSet"]["spec"], there["TrainingRuntime"]["spec"]["template"]["spec"]):
        for one in sets["replicatedJobs"]:
            spec = json.loads(json.dumps(one["template"]["spec"]))
            kubernetes_validate.validate(
                {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": spec}, NEWEST, strict=True
            )
    kubernetes_validate.validate(there["PersistentVolumeClaim"], NEWEST, strict=True)


def test_multinode_keeps_the_papers_step() -> None:
    """Three nodes with four GPUs: 12 trainers x 6 x 1 = 72 completions, micro-batches as on one node."""
    from openrs.config.checks import prompts_per_step
    from openrs.config.load import load

    there = multinode()
    nodes = next(one for one in there["JobSet"]["spec"]["replicatedJobs"] if one["name"] == "node")["template"]["spec"]
    words = nodes["template"]["spec"]["containers"][0]["args"]
    changes = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    recipe, one_node = load("exp3", changes), load("exp3")
    gpus = int(nodes["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert recipe.hardware.world_size == nodes["completions"] * gpus == 12
    assert prompts_per_step(recipe) == prompts_per_step(one_node) == 12
    key = "per_device_train_batch_size"
    assert recipe.grpo[key] == one_node.grpo[key]
    assert there["TrainJob"]["spec"]["trainer"]["numNodes"] == nodes["completions"] == nodes["parallelism"]


def test_multinode_starts_torchrun_with_a_rendezvous_and_names_the_interface() -> None:
    there = multinode()
    for kind, sets in (
        ("JobSet", there["JobSet"]["spec"]),
        ("TrainingRuntime", there["TrainingRuntime"]["spec"]["template"]["spec"]),
    ):
        pod = next(one for one in sets["replicatedJobs"] if one["name"] == "node")["template"]["spec"]["template"][
            "spec"
        ]
        container = pod["containers"][0]
        assert "openrs.training.nodes" in container["args"], kind
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert environment["NCCL_SOCKET_IFNAME"] == environment["GLOO_SOCKET_IFNAME"] == "eth0", kind
        assert int(environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"], kind
    assert importlib.util.find_spec("openrs.training.nodes") is not None
    assert there["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


# --- rights, network, packaging ---------------------------------------------------------------------------------------


def test_the_namespace_enforces_restricted() -> None:
    labels = read(K8S / "namespace" / "namespace.yaml")[0]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_role_stays_in_its_namespace_and_wildcards_nothing() -> None:
    things = {thing["kind"]: thing for thing in read(K8S / "namespace" / "role.yaml")}
    assert set(things) == {"ServiceAccount", "Role", "RoleBinding"}
    for rule in things["Role"]["rules"]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    secrets = [rule for rule in things["Role"]["rules"] if "secrets" in rule["resources"]]
    assert secrets == [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["openrs-hub"], "verbs": ["get"]}]
    readers = {thing["kind"]: thing for thing in read(K8S / "namespace" / "nodes-reader.yaml")}
    verbs = {verb for rule in readers["ClusterRole"]["rules"] for verb in rule["verbs"]}
    assert verbs == {"list"}


def test_the_network_policy_leaves_out_private_addresses_and_metadata_services() -> None:
    every, fetch = (policy["spec"] for policy in read(K8S / "namespace" / "network-policy.yaml")[:2])
    assert every["ingress"] == []
    targets = [to for rule in every["egress"] for to in rule["to"]]
    names = "kubernetes.io/metadata.name"
    assert targets == [
        {"namespaceSelector": {"matchLabels": {names: "kube-system"}}},
        {"ipBlock": {"cidr": "169.254.20.10/32"}},  # NodeLocal DNSCache
        {"namespaceSelector": {"matchLabels": {names: "openshift-dns"}}},
    ]
    assert {port["port"] for rule in every["egress"] for port in rule["ports"]} == {53, 5353}
    assert [port["port"] for rule in fetch["egress"] for port in rule["ports"]] == [443]
    assert "169.254.0.0/16" in fetch["egress"][0]["to"][0]["ipBlock"]["except"]


def test_only_pods_that_fetch_reach_the_hub() -> None:
    selector = read(K8S / "namespace" / "network-policy.yaml")[1]["spec"]["podSelector"]["matchLabels"]
    assert selector == {"app.kubernetes.io/name": "openrs", "openrs-fetches": "true"}
    for where, template in pod_templates().items():
        fetches = any(one["name"].startswith("fetch") for one in all_containers(template["spec"]))
        assert (template["metadata"]["labels"].get("openrs-fetches") == "true") == fetches, where

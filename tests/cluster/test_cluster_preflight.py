"""What is missing is found before the Job is made, and said with its cure."""

from typing import Any

import pytest
from emulator import IMAGE, Emulated

from openrs.cluster.api import Cluster
from openrs.cluster.jobs import PLACEHOLDER, JobManifests, JobRequest, build_manifests, manifest
from openrs.cluster.nodes import fitting, needed
from openrs.cluster.preflight import examine, shortages
from openrs.config.load import load
from openrs.doctor.finding import Finding
from openrs.errors import UserError

pytestmark = pytest.mark.slow


def made(name: str = "exp3", **more: Any) -> JobManifests:
    return build_manifests(JobRequest(load(name), name, image=more.pop("image", IMAGE), **more))


def lines(cluster: Cluster, wanted: JobManifests) -> dict[str, Finding]:
    return {line.name: line for line in examine(cluster, wanted)}


@pytest.fixture
def ready(server: Emulated) -> Emulated:
    server.node("cpu-1", product=None, gpus=0)
    server.node("gpu-1", taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}])
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    server.put({"kind": "StorageClass", "metadata": {"name": "standard", "annotations": default}})
    return server


def test_a_cluster_that_has_everything(ready: Emulated, cluster: Cluster) -> None:
    found = lines(cluster, made())
    assert {name: line.state for name, line in found.items()} == {
        "image": "ok", "API server": "ok", "nodes": "ok", "claim": "ok", "token": "info",
    }  # fmt: skip
    assert "1 of 2 could hold the Pod" in found["nodes"].found
    assert "4 nvidia.com/gpu" in found["nodes"].found
    assert "kubectl create secret generic openrs-hub" in found["token"].fix
    assert ready.names("Job") == ready.names("Pod") == ready.names("PersistentVolumeClaim") == []
    assert {params["dryRun"] for params in ready.asked("POST")} == {"All"}  # nothing was made


def test_the_placeholder_image_is_no_image(ready: Emulated, cluster: Cluster) -> None:
    assert lines(cluster, made(image=PLACEHOLDER))["image"].state == "fail"


# --- nodes ------------------------------------------------------------------------------------------------------------


def node(product: str = "NVIDIA-A40", *, taints: Any = (), **allocatable: str) -> dict[str, Any]:
    has = {"cpu": "32", "memory": "256Gi", "ephemeral-storage": "500Gi", "nvidia.com/gpu": "4"} | {
        name.replace("gpu", "nvidia.com/gpu").replace("disk", "ephemeral-storage"): amount
        for name, amount in allocatable.items()
    }
    return {
        "metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": product}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": has},
    }


EXP3 = manifest("exp3")[1]["spec"]["template"]["spec"]


def test_a_pod_counts_for_the_larger_of_its_init_containers_and_its_containers() -> None:
    needs = {name: str(amount) for name, amount in needed(EXP3).items()}
    assert needs["nvidia.com/gpu"] == "4"  # once, not for nccl and train each
    assert needs["memory"] == str(96 * 2**30)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node(gpu="2")], "1 with 2 nvidia.com/gpu instead of 4"),
        (
            [node(memory="64Gi"), node(memory="65011712Ki")],
            "1 with 62Gi memory instead of 96Gi; 1 with 64Gi memory instead of 96Gi",
        ),
        ([node(cpu="15800m")], "with 15.8 cpu instead of 16"),
        ([node(disk="10Gi")], "with 10Gi ephemeral-storage instead of 24Gi"),
        ([node("NVIDIA-A40-SHARED")], "with another nvidia.com/gpu.product (NVIDIA-A40-SHARED)"),
        ([node(taints=[{"key": "team", "value": "vision", "effect": "NoSchedule"}])], "(team=vision:NoSchedule)"),
        ([], "none of 0 can ever hold the Pod: there are no nodes"),
    ],
)
def test_what_no_node_can_hold(nodes: list[dict[str, Any]], words: str) -> None:
    line = fitting(nodes, EXP3)
    assert line.state == "fail"
    assert words in line.found


@pytest.mark.parametrize(
    "taints",
    [
        [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
        [{"key": "team", "effect": "PreferNoSchedule"}],
        [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}],  # cordoned: for the moment only
    ],
)
def test_taints_that_do_not_keep_it_away_for_ever(taints: list[dict[str, str]]) -> None:
    assert fitting([node(taints=taints)], EXP3).state == "ok"
    assert fitting([node(taints=[{"key": "nvidia.com/gpu", "effect": "NoExecute"}])], EXP3).state == "fail"


def test_other_gpus_are_named_with_the_option_that_takes_them(server: Emulated, cluster: Cluster) -> None:
    server.node("gpu-1", product="NVIDIA-L40S")
    line = lines(cluster, made())["nodes"]
    assert line.state == "fail"
    assert "choose one of the cluster's GPUs with --gpu-product: NVIDIA-L40S" in line.fix
    assert lines(cluster, made(products=["NVIDIA-L40S"]))["nodes"].state == "ok"


def test_a_cluster_without_gpu_labels_is_told_what_makes_them(server: Emulated, cluster: Cluster) -> None:
    server.node("gpu-1", product=None)
    assert "gpu-feature-discovery" in lines(cluster, made())["nodes"].fix


def test_nodes_that_we_may_not_see_are_no_failure(ready: Emulated, cluster: Cluster) -> None:
    message = 'nodes is forbidden: User "someone" cannot list resource "nodes" at the cluster scope'
    ready.fault(403, 99, path="/api/v1/nodes", message=message)
    line = lines(cluster, made())["nodes"]
    assert line.state == "unknown"
    assert 'cannot list resource "nodes"' in line.found


# --- claim, secret, quota, queue, server ------------------------------------------------------------------------------


def test_claims_that_are_there_lost_small_or_missing(ready: Emulated, cluster: Cluster) -> None:
    claim = made().claim
    assert claim is not None
    ready.put(claim | {"status": {"phase": "Bound", "capacity": {"storage": "150Gi"}}})
    line = lines(cluster, made())["claim"]
    assert (line.state, "are kept" in line.found) == ("ok", True)
    claim["status"] = {"phase": "Bound", "capacity": {"storage": "40Gi"}}
    ready.put(claim)
    assert lines(cluster, made())["claim"].state == "warn"
    claim["status"] = {"phase": "Lost"}
    ready.put(claim)
    assert lines(cluster, made())["claim"].state == "fail"
    assert lines(cluster, made(claim="mine"))["claim"].found == "claim mine does not exist"


def test_a_claim_needs_a_storage_class(server: Emulated, cluster: Cluster) -> None:
    assert "no storage class at all" in lines(cluster, made())["claim"].found
    server.put({"kind": "StorageClass", "metadata": {"name": "nfs"}})
    line = lines(cluster, made())["claim"]
    assert (line.state, line.needed) == ("fail", "a default storage class")
    assert lines(cluster, made(storage_class="nfs"))["claim"].state == "ok"
    assert lines(cluster, made(storage_class="ssd"))["claim"].state == "fail"


def test_a_secret_is_looked_for_without_its_value(ready: Emulated, cluster: Cluster) -> None:
    ready.put({"kind": "Secret", "metadata": {"name": "openrs-hub"}, "data": {"token": "aGZfc2VjcmV0"}})
    assert lines(cluster, made())["token"].state == "ok"  # the emulator asserts what was asked for
    ready.fault(403, 99, path="/secrets/", message='cannot get resource "secrets"')
    assert lines(cluster, made())["token"].state == "unknown"
    assert "token" not in lines(cluster, made("demo"))  # it fetches nothing


def test_a_quota_that_is_too_small_names_what_is_left() -> None:
    quota = {
        "status": {
            "hard": {
                "requests.nvidia.com/gpu": "8",
                "limits.memory": "240Gi",
                "requests.cpu": "40",
                "pods": "10",
                "cpu": "12",
            },
            "used": {"requests.nvidia.com/gpu": "6", "limits.memory": "100Gi"},
        }
    }
    assert shortages(quota, needed(EXP3), 1) == [
        ("requests.nvidia.com/gpu: 4 needed, 2 of 8 free", True),
        ("cpu: 16 needed, 12 of 12 free", False),  # never
    ]
    assert shortages(quota, needed(EXP3), 2)[1] == ("limits.memory: 192Gi needed, 140Gi of 240Gi free", True)


@pytest.mark.parametrize(("hard", "used", "state"), [(4, 0, "ok"), (8, 6, "warn"), (4, 4, "warn"), (3, 0, "fail")])
def test_a_quota_refuses_what_can_never_fit_and_warns_where_others_may_end(
    ready: Emulated, cluster: Cluster, hard: int, used: int, state: str
) -> None:
    status = {"hard": {"requests.nvidia.com/gpu": str(hard)}, "used": {"requests.nvidia.com/gpu": str(used)}}
    ready.put({"kind": "ResourceQuota", "metadata": {"name": "openrs"}, "status": status})
    assert lines(cluster, made())["quota"].state == state


def test_who_may_not_list_nodes_is_told_of_the_role_that_can(ready: Emulated, cluster: Cluster) -> None:
    message = 'nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope'
    ready.fault(403, 99, path="/nodes", message=message)
    line = lines(cluster, made())["nodes"]
    assert (line.state, "nodes-reader.yaml" in line.fix, "role.yaml" in line.fix) == ("unknown", True, False)


def test_kueue_queues(ready: Emulated, cluster: Cluster) -> None:
    assert "no LocalQueue gpus" in lines(cluster, made(queue="gpus"))["queue"].found
    idle = {"conditions": [{"type": "Active", "status": "False", "message": "ClusterQueue is stopped"}]}
    ready.put({"kind": "LocalQueue", "metadata": {"name": "gpus"}, "status": idle})
    line = lines(cluster, made(queue="gpus"))["queue"]
    assert (line.state, line.fix) == ("fail", "ClusterQueue is stopped")
    ready.put({"kind": "LocalQueue", "metadata": {"name": "gpus"}, "status": {}})
    assert lines(cluster, made(queue="gpus"))["queue"].state == "ok"
    ready.fault(404, 99, path="localqueues", message="the server could not find the requested resource")
    assert "no Kueue" in lines(cluster, made(queue="gpus"))["queue"].found


def test_the_servers_own_no_is_a_line(ready: Emulated, cluster: Cluster) -> None:
    message = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile'
    ready.fault(403, 99, method="POST", path="/pods", message=message)
    line = lines(cluster, made())["API server"]
    assert line.state == "fail"
    assert "violates PodSecurity" in line.found


def test_a_quota_that_is_used_up_does_not_stop_a_submit(ready: Emulated, cluster: Cluster) -> None:
    message = 'pods "x" is forbidden: exceeded quota: openrs, requested: requests.nvidia.com/gpu=4, used: 8, limited: 8'
    ready.fault(403, 99, method="POST", path="/pods", message=message)
    assert lines(cluster, made())["API server"].state == "warn"


def test_no_right_to_make_jobs_ends_at_once(ready: Emulated, cluster: Cluster) -> None:
    message = 'jobs.batch is forbidden: User "someone" cannot create resource "jobs"'
    ready.fault(403, 99, method="POST", path="/jobs", message=message)
    with pytest.raises(UserError, match='cannot create resource "jobs"'):
        examine(cluster, made())

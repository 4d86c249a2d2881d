"""Kubernetes' words in plain ones: messages as kube-scheduler, kubelet and the Job controller write them."""

from typing import Any

import pytest

from openrs.cluster import words

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            (
                "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: "
                "3 No preemption victims found for incoming pod."
            ),
            "0 of 3 nodes can take the Pod: 3 with too few free GPUs (nvidia.com/gpu): in use, or the node has fewer",
        ),
        (
            (
                "0/4 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
                "2 node(s) didn't match Pod's node affinity/selector, 1 Insufficient memory. preemption: 0/4 nodes are "
                "available: 4 Preemption is not helpful for scheduling.."
            ),
            (
                "0 of 4 nodes can take the Pod: 1 with a taint that the Job does not tolerate "
                "(node-role.kubernetes.io/control-plane: ); 2 with another GPU than the Job requests "
                "(nvidia.com/gpu.product), or none; 1 with too little free memory"
            ),
        ),
        (
            (
                "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 nodes are "
                "available: 1 Preemption is not helpful for scheduling."
            ),
            "the volume claim is not bound yet: its storage class is provisioning it, or does not exist",
        ),
        (
            '0/1 nodes are available: persistentvolumeclaim "openrs-exp3" not found. not found',
            "volume claim openrs-exp3 does not exist",
        ),
        (
            (
                "0/17 nodes are available: 17 node(s) had untolerated taint(s). no new claims to deallocate, "
                "preemption: 0/17 nodes are available: 17 Preemption is not helpful for scheduling."
            ),
            "0 of 17 nodes can take the Pod: 17 with a taint that the Job does not tolerate",
        ),
        (
            (
                "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity,"
                " 1 node(s) were unschedulable."
            ),
            "0 of 2 nodes can take the Pod: 1 in another zone than the volume; 1 cordoned",
        ),
        (
            "0/1 nodes are available: 1 Too many pods.",
            "0 of 1 node can take the Pod: 1 with no capacity for another Pod",
        ),
        ("something nobody knows", "no node yet: something nobody knows"),
        ("0/2 nodes are available: 2 brand new reason.", "0 of 2 nodes can take the Pod: 2 with brand new reason"),
    ],
)
def test_why_no_node_takes_a_pod(message: str, expected: str) -> None:
    assert words.scheduling(message) == expected
    assert words.event({"reason": "FailedScheduling", "type": "Warning", "message": message}) == expected


def test_events_that_say_nothing_new_are_left_out() -> None:
    assert words.event({"reason": "Pulled", "type": "Normal", "message": "Container image pulled"}) is None
    assert words.event({"reason": "BackOff", "type": "Warning", "message": "Back-off"}) is None
    assert words.event({"reason": "Whatever", "type": "Normal", "message": "x"}) is None
    text = words.event({"reason": "FailedCreate", "type": "Warning", "message": "exceeded quota: openrs"})
    assert text == "the Job's Pod could not be created: exceeded quota: openrs"
    assert "Kueue" not in str(words.event({"reason": "QuotaReserved", "type": "Normal", "message": "Quota reserved"}))


def test_what_goes_to_a_terminal_has_no_escapes_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    text = "\x1b]0;owned\x07\x1b[31mred\x1b[0m \x1b[2J hf_abcdefghijklmnop \x9b31m\r\x08"
    assert words.clean(text) == r"red  [hidden] \u009b31m\u0008"


def pod(
    phase: str = "Running", first: list[Any] | None = None, main: dict[str, Any] | None = None, **status: Any
) -> Any:
    states = [{"name": "train", "state": main}] if main is not None else []
    return {
        "metadata": {"name": "p"},
        "spec": {"nodeName": "gpu-1"},
        "status": {"phase": phase, "initContainerStatuses": first or [], "containerStatuses": states, **status},
    }


def gone(code: int, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **more}}


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (pod("Pending"), "is scheduled on gpu-1; image and volume are being prepared"),
        ({"metadata": {}, "status": {"phase": "Pending"}}, "waits for a node"),
        ({"metadata": {}, "spec": {"schedulingGates": [{}]}, "status": {}}, "is held back by a scheduling gate"),
        (pod(first=[{"name": "fetch", "state": {"running": {}}}], main={"waiting": {}}), "fetch runs on gpu-1"),
        (pod(first=[{"name": "fetch", "state": gone(0)}], main={"running": {}}), "train runs on gpu-1"),
        (
            pod(main={"waiting": {"reason": "InvalidImageName", "message": "couldn't parse"}}),
            "train: this is not a valid image name: couldn't parse",
        ),
        (pod("Failed", main=gone(2)), "train ended with exit code 2: bad configuration or data: a retry cannot help"),
        (
            pod("Failed", main=gone(75), conditions=[{"type": "DisruptionTarget", "status": "True"}]),
            (
                "train ended with exit code 75: interrupted with a checkpoint; the next Pod resumes there"
                " (drained, preempted or evicted)"
            ),
        ),
        (
            pod("Failed", main=gone(137, reason="OOMKilled")),
            "train ended with exit code 137: killed for exceeding its memory limit",
        ),
        (pod("Failed", reason="Evicted", message="The node was low on memory"), "ended: The node was low on memory"),
        (pod("Succeeded", main=gone(0)), "is done"),
        (
            {"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}},
            "is being stopped; the trainer writes a checkpoint first",
        ),
    ],
)
def test_what_a_pod_does(thing: dict[str, Any], expected: str) -> None:
    assert words.pod(thing) == expected


def job(
    suspend: bool = False, queue: str | None = None, condition: tuple[str, str] | None = None, **status: Any
) -> Any:
    labels = {"kueue.x-k8s.io/queue-name": queue} if queue else {}
    conditions = [{"type": condition[0], "status": "True", "reason": condition[1], "message": "m"}] if condition else []
    return {
        "metadata": {"labels": labels},
        "spec": {"suspend": suspend},
        "status": {"conditions": conditions, **status},
    }


@pytest.mark.parametrize(
    ("thing", "state"),
    [
        (job(), "waiting"),
        (job(ready=1, active=1), "running"),
        (job(suspend=True), "stopped"),
        (job(suspend=True, active=1), "stopping"),
        (job(suspend=True, terminating=1), "stopping"),
        (job(suspend=True, queue="openrs"), "queued"),
        (job(condition=("Complete", "")), "complete"),
        (job(condition=("Failed", "DeadlineExceeded")), "failed"),
        (job(condition=("FailureTarget", "PodFailurePolicy")), "waiting"),
    ],
)
def test_the_states_of_a_job(thing: dict[str, Any], state: str) -> None:
    assert words.job_state(thing) == state


def test_a_job_whose_pod_fetches_runs() -> None:
    busy = pod("Pending", first=[{"name": "fetch", "state": {"running": {}}}])
    assert words.job_state(job(active=1), [busy]) == "running"
    assert words.job_state(job(active=1), [pod("Pending")]) == "waiting"


def test_between_two_containers_nothing_is_prepared_again() -> None:
    first = [{"name": "fetch", "state": gone(0)}, {"name": "nccl", "state": {"waiting": {}}}]
    assert words.pod(pod("Pending", first=first)) == "has fetch behind it"
    assert words.pod(pod("Running", first=first[:1], main=gone(0))) == "has train behind it"


@pytest.mark.parametrize(("failed", "seconds"), [(1, 10), (2, 20), (3, 40), (7, 600), (20, 600)])
def test_when_the_next_pod_comes(failed: int, seconds: int) -> None:
    ended = [pod("Failed", main=gone(75)) for _ in range(failed)]
    assert f"the next Pod comes {seconds} s after" in str(words.next_try(job(), ended))
    assert words.next_try(job(), [*ended, pod("Pending")]) is None  # it is there
    assert words.next_try(job(suspend=True), ended) is None
    drained = [pod("Failed", main=gone(75), conditions=[{"type": "DisruptionTarget", "status": "True"}])]
    assert words.next_try(job(), drained) is None  # at once


@pytest.mark.parametrize(
    ("kind", "name", "ours"),
    [
        ("Job", "openrs-exp3", True),
        ("Job", "openrs-exp3-seeds", False),
        ("Pod", "openrs-exp3-bcdfg", True),
        ("Pod", "openrs-exp3-0-bcdfg", True),
        ("Pod", "openrs-exp3-seeds-bcdfg", False),
        ("Pod", "openrs-exp3-seeds-0-bcdfg", False),
        ("Pod", "openrs-exp3-seeds", False),
        ("Pod", "seen", True),
        ("PersistentVolumeClaim", "data", True),
        ("PersistentVolumeClaim", "openrs-exp3-seeds", False),
    ],
)
def test_whose_event_it_is(kind: str, name: str, ours: bool) -> None:
    event = {"involvedObject": {"kind": kind, "name": name}}
    assert words.about(event, "openrs-exp3", {"seen"}, "data") is ours


def test_why_a_job_failed() -> None:
    assert (
        words.why_failed(job(condition=("Failed", "DeadlineExceeded")))
        == "it took longer than activeDeadlineSeconds. m"
    )
    assert words.why_failed(job(condition=("Failed", "Novelty"))) == "Novelty. m"

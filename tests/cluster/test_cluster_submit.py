"""Making, finding again, stopping, going on, deleting: one Job a run, whatever the server does in between."""

import json
import logging
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from emulator import IMAGE, Emulated
from waiting import until

from openrs.cluster.api import Cluster, call_api, connect
from openrs.cluster.control import delete, stop
from openrs.cluster.jobs import PLACEHOLDER, JobManifests, JobRequest, build_manifests, manifest
from openrs.cluster.reading import need_job
from openrs.cluster.submit import submit
from openrs.config.load import load
from openrs.errors import RunFailure, UserError

pytestmark = pytest.mark.slow


def made(*changes: str, run: str | None = None, **more: Any) -> JobManifests:
    return build_manifests(JobRequest(load("exp3", changes), "exp3", list(changes), run=run, image=IMAGE, **more))


def test_submit_makes_the_claim_and_the_job_as_printed(server: Emulated, cluster: Cluster) -> None:
    wanted = made()
    output: list[str] = []
    assert submit(cluster, wanted, output.append) == "created"
    there = server.get("Job", "openrs-exp3")
    assert there is not None
    assert {key: there[key] for key in ("apiVersion", "kind", "spec")} == {
        key: wanted.job[key] for key in ("apiVersion", "kind", "spec")
    }
    assert [params["fieldValidation"] for params in server.asked("POST")] == ["Strict", "Strict"]


def test_the_same_run_twice_is_one_job(server: Emulated, cluster: Cluster) -> None:
    submit(cluster, made(), print)
    assert submit(cluster, made(), print) == "exists"
    assert server.names("Job") == ["openrs-exp3"]
    assert len(server.asked("POST", "/jobs")) == 1


def test_another_recipe_under_the_same_name_is_refused_with_the_difference(server: Emulated, cluster: Cluster) -> None:
    submit(cluster, made(), print)
    with pytest.raises(UserError, match=r"grpo\.learning_rate: 1e-06 -> 2e-06"):
        submit(cluster, made("grpo.learning_rate=2e-6"), print)
    assert submit(cluster, made("grpo.learning_rate=2e-6", run="lr2"), print) == "created"
    assert server.names("Job") == ["openrs-exp3", "openrs-lr2"]


def test_a_job_that_kubectl_made_is_recognised(server: Emulated, cluster: Cluster) -> None:
    for thing in manifest("exp3"):
        server.put(json.loads(json.dumps(thing).replace(PLACEHOLDER, IMAGE)))
    assert submit(cluster, made(), print) == "exists"
    with pytest.raises(UserError, match="command: reproduce exp3 --run exp3 -> train exp3"):
        submit(cluster, made(verb="train"), print)


def test_another_image_for_a_job_that_is_there_is_refused_until_it_is_stopped(
    server: Emulated, cluster: Cluster
) -> None:
    submit(cluster, made(), print)
    other = build_manifests(JobRequest(load("exp3"), "exp3", image="registry.example.com/openrs:2"))
    with pytest.raises(UserError, match=f"is running with image = {IMAGE}"):
        submit(cluster, other, print)
    stop(cluster, "exp3", print)
    assert submit(cluster, other, print) == "replaced"


def test_a_finished_run_is_refused_and_a_failed_one_made_anew_on_the_same_claim(
    server: Emulated, cluster: Cluster
) -> None:
    submit(cluster, made(), print)
    first = server.get("Job", "openrs-exp3")
    server.job_status("openrs-exp3", "Complete")
    with pytest.raises(UserError, match="is complete"):
        submit(cluster, made(), print)
    server.job_status("openrs-exp3", "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    output: list[str] = []
    assert submit(cluster, made(), output.append) == "replaced"
    assert "its Pods failed too many times" in "\n".join(output)
    again = server.get("Job", "openrs-exp3")
    assert first is not None
    assert again is not None
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    assert [params.get("propagationPolicy") for params in server.asked("DELETE", "/jobs")] == ["Foreground"]
    assert server.asked("DELETE", "persistentvolumeclaims") == []


@pytest.mark.parametrize("change", ["training.max_hours=20", "monitors.kl.above=0.7"])
def test_settings_that_may_differ_between_attempts_wait_for_a_stop(
    server: Emulated, cluster: Cluster, change: str
) -> None:
    submit(cluster, made(), print)
    with pytest.raises(UserError, match=f"is running with {change.partition('=')[0]} = "):
        submit(cluster, made(change), print)
    stop(cluster, "exp3", print)
    assert submit(cluster, made(change), print) == "replaced"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (75, "is stopped: exit code 75: interrupted with a checkpoint"),
        (
            137,
            "is stopped: exit code 137: killed (SIGKILL), by the node or after the grace period; it resumes from",
        ),
        (None, "is stopped: a Pod went without an exit code; it resumes from the last checkpoint"),
    ],
)
def test_stop_suspends_waits_for_the_checkpoint_and_submit_goes_on(
    server: Emulated, cluster: Cluster, code: int | None, text: str
) -> None:
    """A kubelet and a Job controller take an ended Pod away at once, and leave no time to ask for it."""
    submit(cluster, made(), print)
    earlier, pod = "openrs-exp3-old", "openrs-exp3-abc"
    server.pod(earlier, "openrs-exp3", "Failed", {"train": {"terminated": {"exitCode": 1}}}, node="gpu-1")
    server.pod(pod, "openrs-exp3", "Running", {"train": {"running": {}}}, node="gpu-1")

    def kubelet() -> None:
        until(lambda: (server.get("Job", "openrs-exp3") or {})["spec"].get("suspend"))
        if code is not None:
            server.pod(pod, "openrs-exp3", "Failed", {"train": {"terminated": {"exitCode": code}}}, node="gpu-1")
        server.gone("Pod", pod)
        server.gone("Pod", earlier)

    player = threading.Thread(target=kubelet)
    player.start()
    output: list[str] = []
    stop(cluster, "exp3", output.append)
    player.join()
    assert text in "\n".join(output)
    assert submit(cluster, made(), output.append) == "resumed"
    assert need_job(cluster, "exp3")["spec"]["suspend"] is False
    assert server.names("Job") == ["openrs-exp3"]


def test_stop_under_kueue_deactivates_its_workload(server: Emulated, cluster: Cluster) -> None:
    submit(cluster, made(queue="openrs"), print)
    uid = need_job(cluster, "exp3")["metadata"]["uid"]
    server.put({"kind": "Workload", "metadata": {"name": "other", "ownerReferences": [{"uid": "x"}]}, "spec": {}})
    server.put({"kind": "Workload", "metadata": {"name": "ours", "ownerReferences": [{"uid": uid}]}, "spec": {}})
    stop(cluster, "exp3", print)
    assert server.get("Workload", "ours")["spec"] == {"active": False}  # type: ignore[index]
    assert server.get("Workload", "other")["spec"] == {}  # type: ignore[index]
    assert "suspend" not in need_job(cluster, "exp3")["spec"]  # that field is Kueue's


def test_delete_keeps_the_claim_unless_told(server: Emulated, cluster: Cluster) -> None:
    submit(cluster, made(), print)
    delete(cluster, "exp3", print, with_claim=False)
    assert (server.names("Job"), server.names("PersistentVolumeClaim")) == ([], ["openrs-exp3"])
    with pytest.raises(UserError, match="has no Job openrs-exp3"):
        delete(cluster, "exp3", print, with_claim=False)
    output: list[str] = []
    delete(cluster, "exp3", output.append, with_claim=True)
    assert server.names("PersistentVolumeClaim") == []
    assert "unless the volume's reclaim policy is Retain" in output[-1]


def test_a_plugin_renews_its_token(server: Emulated, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    status = '{"token": "token-%s", "expirationTimestamp": "2020-01-01T00:00:00Z"}'
    answer = f'{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {status}}}'
    plugin.write_text(f"#!/bin/sh\necho x >>{tmp_path}/count\nprintf '{answer}' $(wc -l <{tmp_path}/count)\n")
    plugin.chmod(0o755)
    config = yaml.safe_load(server.kubeconfig.read_text())
    how = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    config["users"][0]["user"] = {"exec": how}
    server.kubeconfig.write_text(yaml.safe_dump(config))
    cluster = connect(None, None)
    for _ in range(2):
        call_api(cluster.batch.list_namespaced_job, "openrs", what="list Jobs")
    assert len(set(server.api.tokens[-2:])) == 2
    assert all(token.startswith("Bearer token-") for token in server.api.tokens[-2:])


# --- what the server does to us ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [None, 429, 500, 503])
def test_a_create_whose_answer_gets_lost_makes_one_job(server: Emulated, cluster: Cluster, code: int | None) -> None:
    """The create works, the connection breaks before the answer: the next try must find it, not fail, not double."""
    server.fault(code, method="POST", path="/jobs", after=True)
    output: list[str] = []
    assert submit(cluster, made(), output.append) == "created"
    assert server.names("Job") == ["openrs-exp3"]
    assert len(server.asked("POST", "/jobs")) == 2


@pytest.mark.parametrize("code", [None, 429, 500])
def test_a_create_that_did_not_work_is_tried_again(server: Emulated, cluster: Cluster, code: int | None) -> None:
    server.fault(code, 3, method="POST", path="/jobs")
    assert submit(cluster, made(), print) == "created"
    assert server.names("Job") == ["openrs-exp3"]


def test_a_server_that_stays_away_leaves_no_doubt_about_what_to_do(
    server: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openrs.cluster import submit as module

    monkeypatch.setattr(module, "CREATE_RETRY_S", 0.3)
    server.fault(None, math.inf, method="POST", path="/jobs")
    with pytest.raises(RunFailure, match="it is unknown whether Job openrs-exp3 was created") as error:
        submit(cluster, made(), print)
    assert "never a second one" in str(error.value)


def test_retry_after_is_kept(server: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from openrs.cluster import api

    slept: list[float] = []
    monkeypatch.setattr(api.time, "sleep", slept.append)
    server.fault(429, retry_after="3")
    call_api(cluster.batch.list_namespaced_job, "openrs", what="list Jobs")
    assert slept == [3.0]


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        (401, "Unauthorized", r"rejects the credentials \(401\): the token has expired"),
        (
            403,
            (
                'jobs.batch is forbidden: User "someone" cannot create resource "jobs" in API group "batch"'
                ' in the namespace "openrs"'
            ),
            r'not allowed to create Job openrs-exp3: .* cannot create resource "jobs"',
        ),
        (403, "exceeded quota: openrs, requested: requests.nvidia.com/gpu=4", "quota is too small"),
        (
            403,
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            "PodSecurity level",
        ),
        (
            422,
            'Job.batch "x" is invalid: spec.template: Invalid value',
            "the API server rejected the request to create Job",
        ),
        (400, 'strict decoding error: unknown field "spec.backofLimit"', 'unknown field "spec.backofLimit"'),
        (418, "teapot", "returned 418"),
    ],
)
def test_a_no_is_one_clear_line(server: Emulated, cluster: Cluster, code: int, message: str, words: str) -> None:
    server.fault(code, 99, method="POST", path="/jobs", message=message)
    with pytest.raises(RunFailure if code == 418 else UserError, match=words):
        submit(cluster, made(), print)
    assert server.names("Job") == []


def test_a_namespace_that_does_not_exist(server: Emulated) -> None:
    with pytest.raises(UserError, match="namespace elsewhere does not exist"):
        submit(connect(None, "elsewhere"), made(), print)


def test_a_server_that_is_not_there(server: Emulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from openrs.cluster import api

    monkeypatch.setattr(api, "STARTUP_RETRY_S", 0.2)
    config = server.kubeconfig.read_text()
    server.kubeconfig.write_text(config.replace(server.url, "http://127.0.0.1:9"))
    with pytest.raises(RunFailure, match=r"did not respond .*connection refused"):
        need_job(connect(None, None), "exp3")


def test_no_kubeconfig_and_no_such_context(server: Emulated, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with pytest.raises(UserError, match="has no context production"):
        connect("production", None)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no usable kubeconfig"):
        connect(None, None)
    for text in ("", "{", "a: [", "- 1", "contexts: 3"):
        (tmp_path / "broken").write_text(text)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
        with pytest.raises(UserError, match="no usable kubeconfig"):
            connect(None, None)


def test_context_and_namespace_need_no_current_context(server: Emulated) -> None:
    config = yaml.safe_load(server.kubeconfig.read_text())
    del config["current-context"]
    server.kubeconfig.write_text(yaml.safe_dump(config))
    assert connect("emulated", "research").namespace == "research"


def test_inside_a_cluster_the_service_account_is_taken(
    server: Emulated, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The files and variables that the kubelet gives a Pod."""
    from kubernetes.config import incluster_config

    from openrs.cluster import api

    for name, text in (("token", "abc"), ("namespace", "research\n"), ("ca.crt", "x")):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(api, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    loaded: list[Any] = []

    def load_in_cluster(client_configuration: Any) -> None:
        loaded.append(client_configuration)

    monkeypatch.setattr(api.config, "load_incluster_config", load_in_cluster)
    assert connect(None, None).namespace == "research"
    assert connect(None, "mine").namespace == "mine"
    assert len(loaded) == 2


def test_no_token_is_ever_said(
    server: Emulated, cluster: Cluster, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    server.fault(403, 99, method="POST", message="User cannot create; Authorization: Bearer hf_abcdefghijklmnopqrst")
    with pytest.raises(UserError) as error:
        submit(cluster, made(), print)
    output = capfd.readouterr()
    for text in (str(error.value), output.out, output.err, caplog.text):
        assert "secret-token-of-the-test" not in text
        assert "hf_abcdefghijklmnopqrst" not in text

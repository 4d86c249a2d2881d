"""Stop a Job with a checkpoint, resume it, delete it."""

import time
from collections.abc import Callable

from openrs.cluster import words
from openrs.cluster.api import ApiException, Cluster, Object, call_api
from openrs.cluster.jobs import job_name
from openrs.cluster.reading import claim_of, need_job, no_job, pods, read_job
from openrs.errors import RunFailure, UserError

Say = Callable[[str], None]
KUEUE = ("kueue.x-k8s.io", "v1beta2")
POLL = 2.0  # seconds between two polls while Pods end


def stop(cluster: Cluster, run: str, say: Say) -> None:
    """Let the run write a checkpoint and end; the Job stays, suspended, and `submit` resumes it."""
    job = need_job(cluster, run)
    name, state = job["metadata"]["name"], words.job_state(job)
    if state in {"complete", "failed"}:
        say(f"Job {name} is {state}: nothing to stop")
        return
    if state == "stopped":
        say(f"Job {name} is stopped already")
        return
    suspend(cluster, job, suspended=True)
    grace = int(job["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30))
    say(f"Job {name} is stopping; a step and a checkpoint may take a while (at most {grace // 60 or 1} min)")
    code = wait_gone(cluster, name, grace + 120, say)
    if code is None:
        say(f"Job {name} is stopped. Its Pods were gone before their exit codes could be read")
    else:
        say(f"Job {name} is stopped: {words.exit_code({'exitCode': code}).partition(';')[0]}")
    say(f"to resume: the same openrs cluster submit ... --run {run}")


def wait_gone(cluster: Cluster, name: str, limit: float, say: Say) -> int | None:
    """Wait until the Job's Pods have ended. Returns the last exit code seen."""
    code, end, before = None, time.monotonic() + limit, ""
    while True:
        active = []
        for pod in pods(cluster, name):
            failed = words.failure(pod)
            code = failed[1] if failed else code
            if (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}:
                active.append(pod)
        if not active:
            return code
        now = "; ".join(f"{pod['metadata']['name']} {words.pod(pod)}" for pod in active)
        if now != before:
            say(now)
            before = now
        if time.monotonic() > end:
            raise RunFailure(f"the Pods of Job {name} do not end: {now}", fix="see kubectl describe pod")
        time.sleep(POLL)


def suspend(cluster: Cluster, job: Object, *, suspended: bool) -> None:
    """Through spec.suspend; under Kueue, which owns that field, through its Workload's spec.active."""
    name = job["metadata"]["name"]
    if words.queue(job) is None:
        patch = {"spec": {"suspend": suspended}}
        call_api(cluster.batch.patch_namespaced_job, name, cluster.namespace, patch, what=f"patch Job {name}")
        return
    where = (*KUEUE, cluster.namespace, "workloads")
    listed = call_api(cluster.custom.list_namespaced_custom_object, *where, what="list Kueue's workloads")
    for workload in listed.get("items", []):
        owners = workload["metadata"].get("ownerReferences") or []
        if any(owner.get("uid") == job["metadata"].get("uid") for owner in owners):
            title = workload["metadata"]["name"]
            patch = {"spec": {"active": not suspended}}
            call_api(
                cluster.custom.patch_namespaced_custom_object, *where, title, patch, what=f"patch Workload {title}"
            )
            return
    raise UserError(f"Kueue has no Workload for Job {name}", fix="see kubectl describe job")


def remove_job(cluster: Cluster, name: str, say: Say, limit: float = 1200) -> None:
    """Delete a Job and wait until it and its Pods are gone (Foreground: the Pods first, then the name is free)."""
    what = f"delete Job {name}"
    try:
        call_api(
            cluster.batch.delete_namespaced_job, name, cluster.namespace, propagation_policy="Foreground", what=what
        )
    except ApiException as error:
        if error.status != 404:
            raise
    end = time.monotonic() + limit
    announced = False
    while read_job(cluster, name) is not None:
        if not announced:
            say(f"waiting for the Pods of Job {name} to end")
            announced = True
        if time.monotonic() > end:
            raise RunFailure(f"Job {name} does not go away", fix="see kubectl describe job")
        time.sleep(POLL)


def delete(cluster: Cluster, run: str, say: Say, *, with_claim: bool) -> None:
    """Delete the Job; the claim with all its data only with `with_claim`."""
    name = job_name(run)
    job = read_job(cluster, name)
    if job is None and not with_claim:
        raise no_job(cluster, run)
    volume = claim_of(job) or name if job is not None else name
    if job is not None:
        remove_job(cluster, name, say)
        say(f"Job {name} is deleted")
    if not with_claim:
        say(f"its claim {volume} and all data in it are kept; --claim deletes that, too")
        return
    try:
        call_api(
            cluster.core.delete_namespaced_persistent_volume_claim,
            volume,
            cluster.namespace,
            what=f"delete claim {volume}",
        )
        say(f"claim {volume} and all data in it are deleted")
    except ApiException as error:
        if error.status != 404:
            raise
        say(f"claim {volume} does not exist")

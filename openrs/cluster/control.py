"""Stop a Job with a checkpoint, let it go on, delete it."""

import time
from collections.abc import Callable

from openrs.cluster import words
from openrs.cluster.api import ApiException, Cluster, Object, ask
from openrs.cluster.jobs import job_name
from openrs.cluster.reading import claim_of, need_job, no_job, pods, read_job
from openrs.errors import RunFailure, UserError

Say = Callable[[str], None]
KUEUE = ("kueue.x-k8s.io", "v1beta2")
POLL = 2.0  # seconds between two looks at Pods that are going


def stop(cluster: Cluster, run: str, say: Say) -> None:
    """Let the run write a checkpoint and end; the Job stays, suspended, and `submit` lets it go on."""
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
    say(f"Job {name} is told to stop; a step and a checkpoint may take a while (at most {grace // 60 or 1} min)")
    code = wait_gone(cluster, name, grace + 120, say)
    if code is None:
        say(f"Job {name} is stopped. Its Pods were gone before they could be asked how they ended")
    else:
        say(f"Job {name} is stopped: {words.exit_code({'exitCode': code}).partition(';')[0]}")
    say(f"go on: the same openrs cluster submit ... --run {run}")


def wait_gone(cluster: Cluster, name: str, limit: float, say: Say) -> int | None:
    """Wait until the Job's Pods have ended. Returns the exit code of the last that told one."""
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
            raise RunFailure(f"the Pods of Job {name} do not end: {now}", fix="kubectl describe pod tells more")
        time.sleep(POLL)


def suspend(cluster: Cluster, job: Object, *, suspended: bool) -> None:
    """Through spec.suspend; under Kueue, which owns that field, through its Workload's spec.active."""
    name = job["metadata"]["name"]
    if words.queue(job) is None:
        patch = {"spec": {"suspend": suspended}}
        ask(cluster.batch.patch_namespaced_job, name, cluster.namespace, patch, what=f"patch Job {name}")
        return
    where = (*KUEUE, cluster.namespace, "workloads")
    listed = ask(cluster.custom.list_namespaced_custom_object, *where, what="list Kueue's workloads")
    for workload in listed.get("items", []):
        owners = workload["metadata"].get("ownerReferences") or []
        if any(owner.get("uid") == job["metadata"].get("uid") for owner in owners):
            title = workload["metadata"]["name"]
            patch = {"spec": {"active": not suspended}}
            ask(cluster.custom.patch_namespaced_custom_object, *where, title, patch, what=f"patch Workload {title}")
            return
    raise UserError(f"Kueue has no Workload for Job {name}", fix="kubectl describe job tells more")


def remove_job(cluster: Cluster, name: str, say: Say, limit: float = 1200) -> None:
    """Delete a Job and wait until it and its Pods are gone (Foreground: Pods first, then the Job's name is free)."""
    what = f"delete Job {name}"
    try:
        ask(cluster.batch.delete_namespaced_job, name, cluster.namespace, propagation_policy="Foreground", what=what)
    except ApiException as error:
        if error.status != 404:
            raise
    end = time.monotonic() + limit
    told = False
    while read_job(cluster, name) is not None:
        if not told:
            say(f"waiting for the Pods of Job {name} to end")
            told = True
        if time.monotonic() > end:
            raise RunFailure(f"Job {name} does not go away", fix="kubectl describe job tells more")
        time.sleep(POLL)


def delete(cluster: Cluster, run: str, say: Say, *, with_claim: bool) -> None:
    """Take the Job away, and the claim with all its data only when asked to."""
    name = job_name(run)
    job = read_job(cluster, name)
    if job is None and not with_claim:
        raise no_job(cluster, run)
    volume = claim_of(job) or name if job is not None else name
    if job is not None:
        remove_job(cluster, name, say)
        say(f"Job {name} is gone")
    if not with_claim:
        say(f"its claim {volume} stays, with everything in it; --claim would delete that, too")
        return
    try:
        ask(
            cluster.core.delete_namespaced_persistent_volume_claim,
            volume,
            cluster.namespace,
            what=f"delete claim {volume}",
        )
        say(f"claim {volume} is gone, and what was in it")
    except ApiException as error:
        if error.status != 404:
            raise
        say(f"there is no claim {volume}")

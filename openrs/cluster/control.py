"""Stop a Job with a checkpoint, resume it, delete it."""

import queue
import threading
import time

from openrs.cluster import api, words
from openrs.cluster.api import Cluster, Object, call_api, get, list_items
from openrs.cluster.jobs import job_name
from openrs.cluster.reading import claim_of, need_job, no_job
from openrs.cluster.watch import OutageNotifier, Say, feed_thread, watched
from openrs.errors import EXIT_DONE, EXIT_INTERRUPTED, RunFailure, UserError

KUEUE = ("kueue.x-k8s.io", "v1beta2")
CLAIM_S = 60.0  # seconds to wait for a claim to go
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
    grace = int(job["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30))
    ending = PodsEnding(cluster, name, say)  # from before the patch: a Pod that has ended is gone at once
    try:
        suspend(cluster, job, suspended=True)
        say(f"Job {name} is stopping; a step and a checkpoint may take a while (at most {grace // 60 or 1} min)")
        codes = ending.wait(grace + 120)
    finally:
        ending.stop.set()
    say(f"Job {name} is stopped: {how_ended(codes)}")
    say(f"to resume: the same openrs cluster submit ... --run {run}")


def how_ended(codes: list[int | None]) -> str:
    """Whether a checkpoint was written, by its Pods' exit codes; None for one that never ran or was gone unseen."""
    if not codes:
        return "no Pod of it was there, so nothing is lost"
    lost = [code for code in codes if code not in {EXIT_DONE, EXIT_INTERRUPTED}]
    code = lost[0] if lost else codes[0]
    if code is None:
        return "a Pod went without an exit code; it resumes from the last checkpoint that was complete before"
    text = words.exit_code({"exitCode": code}).partition(";")[0]
    return f"{text}; it resumes from the last checkpoint that was complete before" if lost else text


class PodsEnding:
    """Watches the Pods of a Job in a thread, and waits until all of them have ended."""

    def __init__(self, cluster: Cluster, name: str, say: Say) -> None:
        self.stop = threading.Event()
        self._name, self._say = name, say
        self._queue: queue.SimpleQueue[tuple[str, Object] | Exception] = queue.SimpleQueue()
        self._pods: dict[str, Object] = {}  # as they were seen last
        self._gone: set[str] = set()
        listing, selector = cluster.core.list_namespaced_pod, f"batch.kubernetes.io/job-name={name}"
        feed = watched(listing, cluster.namespace, self.stop, OutageNotifier(say), what="Pods", label_selector=selector)

        feed_thread("pods", feed, self._queue.put)
        while self._next(None) != "LISTED":
            pass
        self._before = {pod for pod in self._pods if self._ended(pod)}  # attempts that ended on their own

    def wait(self, limit: float) -> list[int | None]:
        """The exit codes, one a Pod; None where there was none. Raises RunFailure after `limit` seconds."""
        end, before = time.monotonic() + limit, ""
        while active := [pod for name, pod in self._pods.items() if not self._ended(name)]:
            now = "; ".join(f"{pod['metadata']['name']} {words.pod(pod)}" for pod in active)
            if now != before:
                self._say(now)
                before = now
            if self._next(max(0.0, end - time.monotonic())) is None:
                raise RunFailure(f"the Pods of Job {self._name} do not end: {now}", fix="see kubectl describe pod")
        return [_code(pod) for name, pod in self._pods.items() if name not in self._before]

    def _ended(self, name: str) -> bool:
        return name in self._gone or words.is_over(self._pods[name])

    def _next(self, timeout: float | None) -> str | None:
        """Take one change in; returns its kind, None for none in `timeout` seconds."""
        try:
            change = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(change, Exception):
            raise change
        kind, pod = change
        if kind != "LISTED":
            name = pod["metadata"]["name"]
            if kind == "DELETED":
                self._gone.add(name)
            if _code(pod) is not None or name not in self._pods or _code(self._pods[name]) is None:
                self._pods[name] = pod
        return kind


def _code(pod: Object) -> int | None:
    failed = words.failure(pod)
    if failed is not None:
        return failed.code
    return EXIT_DONE if (pod.get("status") or {}).get("phase") == "Succeeded" else None


def suspend(cluster: Cluster, job: Object, *, suspended: bool) -> None:
    """Through spec.suspend; under Kueue, which owns that field, through its Workload's spec.active."""
    name = job["metadata"]["name"]
    if words.queue(job) is None:
        patch = {"spec": {"suspend": suspended}}
        call_api(cluster.batch.patch_namespaced_job, name, cluster.namespace, patch, what=f"patch Job {name}")
        return
    where = (*KUEUE, cluster.namespace, "workloads")
    for workload in list_items(cluster.custom.list_namespaced_custom_object, *where, what="list Kueue's workloads"):
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
    api.delete(cluster, "Job", name, propagation_policy="Foreground")
    end = time.monotonic() + limit
    announced = False
    while get(cluster, "Job", name) is not None:
        if not announced:
            say(f"waiting for the Pods of Job {name} to end")
            announced = True
        if time.monotonic() > end:
            raise RunFailure(f"Job {name} does not go away", fix="see kubectl describe job")
        time.sleep(POLL)


def delete(cluster: Cluster, run: str, say: Say, *, with_claim: bool) -> None:
    """Delete the Job; the claim with all its data only with `with_claim`."""
    name = job_name(run)
    job = get(cluster, "Job", name)
    if job is None and not with_claim:
        raise no_job(cluster, run)
    volume = claim_of(job) or name if job is not None else name
    if job is not None:
        remove_job(cluster, name, say)
        say(f"Job {name} is deleted")
    if not with_claim:
        say(f"its claim {volume} and all data in it are kept; --claim deletes that, too")
        return
    if not api.delete(cluster, "claim", volume):
        say(f"claim {volume} does not exist")
        return
    end = time.monotonic() + CLAIM_S
    while (there := get(cluster, "claim", volume) is not None) and time.monotonic() < end:
        time.sleep(POLL)
    gone = "deleted, and its data with it, unless the volume's reclaim policy is Retain (kubectl get pv)"
    waits = f"being deleted, as soon as no Pod uses it: kubectl describe pvc {volume}"
    say(f"claim {volume} is {waits if there else gone}")

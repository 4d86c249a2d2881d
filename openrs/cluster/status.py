"""State of the namespace's Jobs: one line each, or one Job with its Pods, and why they wait."""

from openrs.cluster import words
from openrs.cluster.api import Cluster, Object, call_api
from openrs.cluster.reading import claim_of, jobs, need_job, pods, run_of
from openrs.errors import UserError
from openrs.run.units import format_duration


def overview(cluster: Cluster) -> str:
    """All Jobs of openrs in the namespace."""
    listed = jobs(cluster)
    if not listed:
        return f"namespace {cluster.namespace} has no Job of openrs; create one with openrs cluster submit RECIPE\n"
    width = max(len(run_of(job)) for job in listed)
    return "".join(f"{run_of(job):{width}s}  {_state(job)}\n" for job in listed)


def of_run(cluster: Cluster, run: str) -> str:
    """One Job: state, Pods, their events, its volume, and what to do next."""
    job = need_job(cluster, run)
    name = job["metadata"]["name"]
    text = [f"{name} in namespace {cluster.namespace}: {_state(job)}"]
    for pod in pods(cluster, name):
        text.append(f"  Pod {pod['metadata']['name']} {words.pod(pod)}")
        failed = words.failure(pod)
        if failed is not None and failed[2]:
            text += [f"    | {line}" for line in failed[2].splitlines()[-4:]]
    text += [f"  {line}" for line in dict.fromkeys(_events(cluster, name))]
    text.append(f"  all data are in the claim {claim_of(job)}")
    text.append(f"  next: {_next(job, run)}")
    return "\n".join(text) + "\n"


def _state(job: Object) -> str:
    state, took = words.job_state(job), words.seconds_of(job)
    parts = [state]
    if took is not None and state != "stopped":
        preposition = "for" if state in {"running", "waiting"} else "after"
        parts.append(f"{preposition} {format_duration(took)}")
    if state == "failed":
        parts.append(f"- {words.why_failed(job)}")
    if state == "queued":
        parts.append(f"in Kueue's queue {words.queue(job)}")
    failed = (job.get("status") or {}).get("failed")
    if failed and state != "failed":
        parts.append(f"({failed} Pods failed before)")
    indexes = (job.get("status") or {}).get("completedIndexes")
    if indexes and state != "complete":
        parts.append(f"(done: {indexes})")
    return " ".join(parts)


def _events(cluster: Cluster, name: str) -> list[str]:
    try:
        listed = call_api(cluster.core.list_namespaced_event, cluster.namespace, what="list events").get("items") or []
    except UserError as error:
        return [error.what]
    ours = [
        event
        for event in listed
        if (event.get("involvedObject") or {}).get("name") == name
        or str((event.get("involvedObject") or {}).get("name")).startswith(f"{name}-")
    ]
    newest = sorted(ours, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))[-10:]
    return [text for event in newest if (text := words.event(event)) is not None]


def _next(job: Object, run: str) -> str:
    return {
        "complete": f"openrs cluster collect {run}",
        "failed": f"openrs cluster logs {run}; once that is fixed, the same openrs cluster submit resumes",
        "stopped": "the same openrs cluster submit resumes from the last checkpoint",
        "stopping": f"openrs cluster status {run}, until it is stopped",
        "queued": f"openrs cluster logs -f {run}",
        "running": f"openrs cluster logs -f {run}",
        "waiting": f"openrs cluster logs -f {run}",
    }[words.job_state(job)]

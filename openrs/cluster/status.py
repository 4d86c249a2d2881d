"""How the namespace's Jobs are: one line each, or one Job with its Pods, and why they wait."""

from openrs.cluster import words
from openrs.cluster.api import Cluster, Object, ask
from openrs.cluster.reading import claim_of, jobs, need_job, pods, run_of
from openrs.errors import UserError
from openrs.run.progress import duration


def overview(cluster: Cluster) -> str:
    """All Jobs of openrs in the namespace."""
    found = jobs(cluster)
    if not found:
        return f"namespace {cluster.namespace} has no Job of openrs; openrs cluster submit RECIPE makes one\n"
    width = max(len(run_of(job)) for job in found)
    return "".join(f"{run_of(job):{width}s}  {_state(job)}\n" for job in found)


def of_run(cluster: Cluster, run: str) -> str:
    """One Job: state, Pods, what the cluster said about them, its volume, and what to do next."""
    job = need_job(cluster, run)
    name = job["metadata"]["name"]
    text = [f"{name} in namespace {cluster.namespace}: {_state(job)}"]
    found = pods(cluster, name)
    for pod in found:
        text.append(f"  Pod {pod['metadata']['name']} {words.pod(pod)}")
        failed = words.failure(pod)
        if failed is not None and failed[2]:
            text += [f"    | {line}" for line in failed[2].splitlines()[-4:]]
    text += [f"  {line}" for line in dict.fromkeys(_events(cluster, name))]
    text.append(f"  everything is kept in the claim {claim_of(job)}")
    text.append(f"  next: {_next(job, run)}")
    return "\n".join(text) + "\n"


def _state(job: Object) -> str:
    state, took = words.job_state(job), words.seconds_of(job)
    told = [state]
    if took is not None and state != "stopped":
        told.append(f"for {duration(took)}" if state in {"running", "waiting"} else f"after {duration(took)}")
    if state == "failed":
        told.append(f"- {words.why_failed(job)}")
    if state == "queued":
        told.append(f"in Kueue's queue {words.queue(job)}")
    failed = (job.get("status") or {}).get("failed")
    if failed and state != "failed":
        told.append(f"({failed} Pods failed before)")
    indexes = (job.get("status") or {}).get("completedIndexes")
    if indexes and state != "complete":
        told.append(f"(done: {indexes})")
    return " ".join(told)


def _events(cluster: Cluster, name: str) -> list[str]:
    try:
        listed = ask(cluster.core.list_namespaced_event, cluster.namespace, what="list events").get("items") or []
    except UserError as error:
        return [error.what]
    ours = [
        one
        for one in listed
        if (one.get("involvedObject") or {}).get("name") == name
        or str((one.get("involvedObject") or {}).get("name")).startswith(f"{name}-")
    ]
    newest = sorted(ours, key=lambda one: str(one.get("lastTimestamp") or one.get("eventTime") or ""))[-10:]
    return [text for one in newest if (text := words.event(one)) is not None]


def _next(job: Object, run: str) -> str:
    return {
        "complete": f"openrs cluster collect {run}",
        "failed": f"openrs cluster logs {run}; once mended, the same openrs cluster submit goes on",
        "stopped": "the same openrs cluster submit goes on from the last checkpoint",
        "stopping": f"openrs cluster status {run}, until it is stopped",
        "queued": f"openrs cluster logs -f {run}",
        "running": f"openrs cluster logs -f {run}",
        "waiting": f"openrs cluster logs -f {run}",
    }[words.job_state(job)]

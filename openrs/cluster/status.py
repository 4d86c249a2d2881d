"""State of the namespace's Jobs: one line each, or one Job with its Pods, and why they wait."""

from datetime import UTC, datetime

from kubernetes.client.exceptions import ApiException

from openrs.cluster import words
from openrs.cluster.api import Cluster, Denied, Object, call_api, list_items, no_namespace
from openrs.cluster.reading import claim_of, jobs, need_job, pods, run_of
from openrs.errors import UserError
from openrs.run.units import format_duration


def overview(cluster: Cluster) -> str:
    """All Jobs of openrs in the namespace."""
    listed = jobs(cluster)
    if not listed:
        need_namespace(cluster)
        return f"namespace {cluster.namespace} has no Job of openrs; create one with openrs cluster submit RECIPE\n"
    width = max(len(run_of(job)) for job in listed)
    return "".join(f"{run_of(job):{width}s}  {_state(job, pods(cluster, job['metadata']['name']))}\n" for job in listed)


def of_run(cluster: Cluster, run: str) -> str:
    """One Job: state, Pods, their events, its volume, and what to do next."""
    job = need_job(cluster, run)
    name, there = job["metadata"]["name"], pods(cluster, job["metadata"]["name"])
    text = [f"{name} in namespace {cluster.namespace}: {_state(job, there)}"]
    for pod in there:
        text.append(f"  Pod {pod['metadata']['name']} {words.pod(pod)}")
        failed = words.failure(pod)
        if failed is not None:
            text += [f"    | {line}" for line in failed.message.splitlines()[-4:]]
    after = words.next_try(job, there)
    text += [f"  {after}"] if after is not None else []
    text += [f"  {line}" for line in _events(cluster, job, there)]
    text.append(f"  all data are in the claim {claim_of(job)}")
    text.append(f"  next: {_next(words.job_state(job), run)}")
    return "\n".join(text) + "\n"


def _state(job: Object, pods: list[Object]) -> str:
    state, took = words.job_state(job, pods), words.seconds_of(job)
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


def need_namespace(cluster: Cluster) -> None:
    """Raises UserError for a namespace that does not exist, where the server tells us."""
    try:
        call_api(cluster.core.read_namespace, cluster.namespace, what="get the namespace")
    except ApiException as error:
        raise no_namespace(error, cluster.namespace) or error from None
    except Denied:  # most may not ask
        pass


def _events(cluster: Cluster, job: Object, pods: list[Object]) -> list[str]:
    """The newest events of a run, one line a kind, each with how long ago it was last seen."""
    try:
        listed = list_items(cluster.core.list_namespaced_event, cluster.namespace, what="list events")
    except UserError as error:
        return [error.what]
    names = {pod["metadata"]["name"] for pod in pods}
    kinds: dict[str, Object] = {}
    for event in sorted(listed, key=_moment):
        if words.about(event, job["metadata"]["name"], names, claim_of(job)) and words.event(event) is not None:
            kind = words.kind_of_event(event)
            kinds.pop(kind, None)
            kinds[kind] = event
    return [f"{_ago(event)}: {words.event(event)}" for event in list(kinds.values())[-10:]]


def _moment(event: Object) -> str:
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or "")


def _ago(event: Object) -> str:
    at = words.moment(_moment(event) or None)
    if at is None:
        return "at an unknown time"
    return f"{format_duration(max(0.0, (datetime.now(UTC) - at).total_seconds()))} ago"


def _next(state: str, run: str) -> str:
    commands = {
        "complete": f"openrs cluster collect {run}",
        "failed": f"openrs cluster logs {run}; once that is fixed, the same openrs cluster submit resumes",
        "stopped": "the same openrs cluster submit resumes from the last checkpoint",
        "stopping": f"openrs cluster status {run}, until it is stopped",
    }
    return commands.get(state, f"openrs cluster logs -f {run}")

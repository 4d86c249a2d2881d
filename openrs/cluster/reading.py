"""Reads the Jobs of openrs in the namespace, their Pods and their claims."""

from openrs.cluster.api import RUN_LABEL, SELECTOR, Cluster, Object, get, labels, list_items
from openrs.cluster.jobs import job_name
from openrs.errors import UserError


def need_job(cluster: Cluster, run: str) -> Object:
    job = get(cluster, "Job", job_name(run))
    if job is None:
        raise no_job(cluster, run)
    return job


def no_job(cluster: Cluster, run: str) -> UserError:
    runs = [run_of(job) for job in jobs(cluster)]
    return UserError(
        f"namespace {cluster.namespace} has no Job {job_name(run)}",
        fix=f"runs there: {', '.join(runs)}" if runs else "it has no Job of openrs; check --namespace",
    )


def run_of(job: Object) -> str:
    """The run's name of a Job."""
    return labels(job).get(RUN_LABEL) or str(job["metadata"]["name"]).removeprefix("openrs-")


def jobs(cluster: Cluster) -> list[Object]:
    """All Jobs of openrs in the namespace."""
    return list_items(cluster.batch.list_namespaced_job, cluster.namespace, label_selector=SELECTOR, what="list Jobs")


def pods(cluster: Cluster, name: str) -> list[Object]:
    """The Pods of a Job, the oldest first."""
    selector = f"batch.kubernetes.io/job-name={name}"
    listed = list_items(cluster.core.list_namespaced_pod, cluster.namespace, label_selector=selector, what="list Pods")
    return sorted(listed, key=lambda pod: pod["metadata"].get("creationTimestamp") or "")


def claim_of(job: Object) -> str | None:
    """The claim that a Job's Pods mount as `data`."""
    for volume in job["spec"]["template"]["spec"].get("volumes") or []:
        if volume["name"] == "data" and "persistentVolumeClaim" in volume:
            return str(volume["persistentVolumeClaim"]["claimName"])
    return None

"""The Pod that collect copies from: the training's own while it runs, else one that mounts the claim read-only."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from openrs.cluster import control, words
from openrs.cluster.api import Cluster, Object, delete, get
from openrs.cluster.jobs import DATA, PLACEHOLDER, job_name, manifest
from openrs.cluster.reading import claim_of, no_job, pods
from openrs.cluster.submit import create
from openrs.cluster.watch import Say
from openrs.errors import RunFailure, UserError

START = 600.0  # seconds to start: the volume is attached, the image pulled
READER = "read"


@contextmanager
def reader(cluster: Cluster, run: str, job: Object | None, image: str | None, say: Say) -> Iterator[tuple[str, str]]:
    """(Pod, container) that see the claim: the training's own while it runs, else a temporary one."""
    for pod in pods(cluster, job_name(run)) if job is not None else []:
        for state in (pod.get("status") or {}).get("containerStatuses") or []:
            if "running" in (state.get("state") or {}) and not pod["metadata"].get("deletionTimestamp"):
                say(f"copying from the running Pod {pod['metadata']['name']}")
                yield pod["metadata"]["name"], state["name"]
                return
    own = reading_pod(cluster, run, job, image)
    name = own["metadata"]["name"]
    say(f"Pod {name} mounts the claim, read-only")
    try:
        remove_pod(cluster, name)  # left by an earlier collect that was killed
        create(cluster, own, say)
        wait_running(cluster, name, say)
        yield name, READER
    finally:
        remove_pod(cluster, name)


def reading_pod(cluster: Cluster, run: str, job: Object | None, image: str | None) -> Object:
    """As restricted as the Job's own Pods, and scheduled like them, so that the volume can be mounted."""
    like = job or manifest("demo")[1]
    pod = like["spec"]["template"]["spec"]
    claim = claim_of(job) if job is not None else job_name(run)
    known = image or (pod["containers"][0]["image"] if job is not None else None)
    if known is None or known == PLACEHOLDER:
        if job is None and get(cluster, "claim", str(claim)) is None:
            raise no_job(cluster, run)
        raise UserError(
            f"the Job of {run} is gone, and with it the image's name",
            fix="give the image: --image REGISTRY/openrs@sha256:...",
        )
    small = {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "256Mi"}
    kept = {"automountServiceAccountToken", "enableServiceLinks", "securityContext", "tolerations", "imagePullSecrets"}
    spec = {key: value for key, value in pod.items() if key in kept}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job_name(run)}-collect",
            "labels": {"app.kubernetes.io/name": "openrs", "app.kubernetes.io/component": "collect"},
        },
        "spec": spec
        | {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 6 * 3600,  # it ends even if we are killed
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
            "containers": [
                {
                    "name": READER,
                    "image": known,
                    "command": ["sleep", "21600"],
                    "securityContext": pod["containers"][0]["securityContext"],
                    "resources": {"requests": small, "limits": small},
                    "volumeMounts": [{"name": "data", "mountPath": DATA, "readOnly": True}],
                }
            ],
        },
    }


def wait_running(cluster: Cluster, name: str, say: Say) -> None:
    end, before = time.monotonic() + START, ""
    while True:
        pod = get(cluster, "Pod", name)
        if pod is None:
            raise RunFailure(f"Pod {name} was deleted before it ran", fix="run the command again")
        doing = words.pod(pod)
        if (pod.get("status") or {}).get("phase") == "Running":
            return
        if doing != before:
            say(f"Pod {name} {doing}")
            before = doing
        if words.is_over(pod) or time.monotonic() > end:
            raise RunFailure(f"Pod {name} does not run: {doing}", fix=f"see kubectl describe pod {name}")
        time.sleep(control.POLL)


def remove_pod(cluster: Cluster, name: str) -> None:
    """Delete a Pod and wait until it is gone; does nothing when there is none."""
    end = time.monotonic() + 60
    there = delete(cluster, "Pod", name, grace_period_seconds=1)
    while there and time.monotonic() < end:
        time.sleep(control.POLL / 4)
        there = get(cluster, "Pod", name) is not None

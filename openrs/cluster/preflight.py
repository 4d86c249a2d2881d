"""Before a Job is made: can any node ever hold it, is what it needs there, would the server take it. Changes nothing.

Each line says what was found, what is needed and how to mend it. What we may not look at is no failure: the Job's own
events will tell the same later.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from openrs.cluster.api import ApiException, Cluster, Object, ask, no_namespace, said
from openrs.cluster.control import KUEUE
from openrs.cluster.jobs import PLACEHOLDER, JobManifests
from openrs.cluster.nodes import fitting, needed, plain
from openrs.doctor.finding import Finding, judged
from openrs.errors import UserError

STRICT: dict[str, Any] = {"dry_run": "All", "field_validation": "Strict", "field_manager": "openrs"}


def examine(cluster: Cluster, made: JobManifests) -> list[Finding]:
    """All lines. Raises UserError for a namespace that does not exist and for credentials that are not taken."""
    pod = made.job["spec"]["template"]["spec"]
    found = [_image(pod), _server(cluster, made), *_nodes(cluster, pod), _claim(cluster, made), _secret(cluster, pod)]
    found += _quota(cluster, made)
    queue = made.job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
    if queue is not None:
        found.append(_queue(cluster, queue))
    return [line for line in found if line is not None]


def _looked(name: str, look: Callable[[], Finding | None]) -> Finding | None:
    """A line, or one that says that we may not look."""
    try:
        return look()
    except UserError as error:
        if "not allowed" not in error.what:
            raise
        return Finding(name, "unknown", error.what, "", error.fix)


def _image(pod: Object) -> Finding:
    image = pod["containers"][0]["image"]
    if image == PLACEHOLDER:
        return Finding(
            "image", "fail", "none: the manifests have only a placeholder", "the image of openrs in your registry",
            "--image REGISTRY/openrs@sha256:..., or OPENRS_IMAGE in the environment (docs/kubernetes.md)",
        )  # fmt: skip
    return Finding("image", "ok", image)


def _server(cluster: Cluster, made: JobManifests) -> Finding | None:
    """The server's own word on every object, and on a Pod of the Job: PodSecurity and quota only look at Pods."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": deepcopy(made.job["spec"]["template"]["metadata"]),
        "spec": deepcopy(made.job["spec"]["template"]["spec"]),
    }
    pod["metadata"]["name"] = f"{made.job['metadata']['name']}-preflight"
    tries = [
        ("Job", cluster.batch.create_namespaced_job, made.job),
        ("Pod", cluster.core.create_namespaced_pod, pod),
    ]
    if made.claim is not None:
        create = cluster.core.create_namespaced_persistent_volume_claim
        tries.insert(0, ("PersistentVolumeClaim", create, made.claim))
    untried = []
    for kind, call, thing in tries:
        try:
            ask(call, cluster.namespace, thing, what=f"create a {kind}", **STRICT)
        except ApiException as error:
            if error.status == 409:  # there already: submit looks at it
                continue
            raise no_namespace(error, cluster.namespace) or UserError(said(error)) from None
        except UserError as error:
            if "cannot" in error.what and kind == "Pod":
                untried.append(kind)
                continue
            if error.what.startswith("not allowed"):
                raise
            full = "quota" in error.what  # others may end
            return Finding("API server", "warn" if full else "fail", error.what, "", error.fix)
    if untried:
        return Finding("API server", "unknown", "takes the Job; its Pod could not be tried (no right to create Pods)")
    return Finding("API server", "ok", "takes the Job, its claim and its Pod (dry run, strict)")


def _nodes(cluster: Cluster, pod: Object) -> list[Finding | None]:
    def look() -> Finding:
        listed: list[Object] = ask(cluster.core.list_node, what="list nodes").get("items") or []
        return fitting(listed, pod)

    return [_looked("nodes", look)]


# --- claim, secret, quota, queue --------------------------------------------------------------------------------------


def _claim(cluster: Cluster, made: JobManifests) -> Finding | None:
    volume = next(one for one in made.job["spec"]["template"]["spec"]["volumes"] if one["name"] == "data")
    name = volume["persistentVolumeClaim"]["claimName"]

    def look() -> Finding:
        try:
            there = ask(
                cluster.core.read_namespaced_persistent_volume_claim, name, cluster.namespace, what=f"get claim {name}"
            )
        except ApiException as error:
            if error.status != 404:
                raise
            if made.claim is None:
                return Finding("claim", "fail", f"there is no claim {name}", "", "leave --claim out and one is made")
            return _class(cluster, made.claim, name)
        return _there(there, made, name)

    return _looked("claim", look)


def _there(there: Object, made: JobManifests, name: str) -> Finding:
    status = there.get("status") or {}
    phase, size = status.get("phase"), (status.get("capacity") or there["spec"]["resources"]["requests"]).get("storage")
    if there["metadata"].get("deletionTimestamp") or phase == "Lost":
        return Finding(
            "claim",
            "fail",
            f"{name} is {'being deleted' if phase != 'Lost' else 'lost'}",
            "a claim",
            "wait, or --claim",
        )
    wanted = made.claim["spec"]["resources"]["requests"]["storage"] if made.claim is not None else None
    if wanted is not None and size is not None and parse_quantity(size) < parse_quantity(wanted):
        return Finding(
            "claim", "warn", f"{name} is there, with {size}", f"{wanted} for all checkpoints",
            "kubectl patch it larger where its storage class allows that",
        )  # fmt: skip
    return Finding(
        "claim", "ok", f"{name} is there ({phase}, {size}): what is in it is kept, and the run goes on from it"
    )


def _class(cluster: Cluster, claim: Object, name: str) -> Finding:
    """A claim that will be made needs a storage class: the one it names, or the cluster's default."""
    size = claim["spec"]["resources"]["requests"]["storage"]
    wanted = claim["spec"].get("storageClassName")
    try:
        listed = ask(cluster.storage.list_storage_class, what="list storage classes").get("items") or []
    except UserError as error:
        if "not allowed" not in error.what:
            raise
        return Finding("claim", "info", f"{name} will be made ({size}, class {wanted or 'the default'})")
    names = [one["metadata"]["name"] for one in listed]
    default = "storageclass.kubernetes.io/is-default-class"
    has_default = any((one["metadata"].get("annotations") or {}).get(default) == "true" for one in listed)
    good = wanted in names if wanted is not None else has_default
    have = f"classes: {', '.join(names)}" if names else "no storage class at all"
    needed_class = wanted if wanted is not None else "a default storage class"
    return judged(
        "claim", good, f"{name} will be made ({size}); {have}", f"{needed_class}", "--storage-class NAME, one of those"
    )


def _secret(cluster: Cluster, pod: Object) -> Finding | None:
    """The hub's token is optional. Only its metadata is asked for: the value never comes here."""
    names = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for container in pod.get("initContainers") or []
        for variable in container["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    if not names:
        return None
    name = names.pop()

    def look() -> Finding:
        try:
            metadata_of(cluster, name)
        except ApiException as error:
            if error.status != 404:
                raise
            make = f"kubectl create secret generic {name} --from-literal=token=hf_..."
            return Finding("token", "info", f"no secret {name}: enough for public models and data", "", make)
        return Finding("token", "ok", f"secret {name} is there; only the container fetch gets it")

    return _looked("token", look)


def metadata_of(cluster: Cluster, name: str) -> None:
    """Ask for a secret's metadata alone (PartialObjectMetadata). Raises ApiException 404, UserError."""

    def call(**options: Any) -> Any:
        return cluster.client.call_api(
            f"/api/v1/namespaces/{cluster.namespace}/secrets/{name}",
            "GET",
            header_params={"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
            auth_settings=["BearerToken"],
            response_types_map={},
            _return_http_data_only=True,
            **options,
        )

    ask(call, what=f"get the secret {name}")


def _quota(cluster: Cluster, made: JobManifests) -> list[Finding | None]:
    needs = needed(made.job["spec"]["template"]["spec"])
    pods = int(made.job["spec"].get("parallelism", 1))

    def look() -> Finding | None:
        listed = ask(cluster.core.list_namespaced_resource_quota, cluster.namespace, what="list quotas").get("items")
        short = [text for quota in listed or [] for text in shortages(quota, needs, pods)]
        if not listed:
            return None
        return judged(
            "quota", not short, "; ".join(short) or "leaves room for the Job", "room for its Pods",
            "wait for others to end, or ask for more: kubectl describe resourcequota", bad="warn",
        )  # fmt: skip

    return [_looked("quota", look)]


def shortages(quota: Object, needs: Mapping[str, Decimal], pods: int) -> list[str]:
    """What a quota does not leave for the Job's Pods: `requests.nvidia.com/gpu: 4 needed, 2 of 8 free`."""
    status = quota.get("status") or {}
    found = []
    for key, amount in (status.get("hard") or {}).items():
        name = key.removeprefix("requests.").removeprefix("limits.")
        if name not in needs or (key == name and name not in {"cpu", "memory"}):
            continue
        hard, used = parse_quantity(amount), parse_quantity((status.get("used") or {}).get(key, "0"))
        if hard - used < needs[name] * pods:
            found.append(f"{key}: {plain(needs[name] * pods)} needed, {plain(hard - used)} of {plain(hard)} free")
    return found


def _queue(cluster: Cluster, name: str) -> Finding | None:
    where = (*KUEUE, cluster.namespace, "localqueues")

    def look() -> Finding:
        try:
            listed = ask(cluster.custom.list_namespaced_custom_object, *where, what="list Kueue's LocalQueues")
        except ApiException as error:
            if error.status != 404:
                raise
            return Finding(
                "queue",
                "fail",
                "the cluster has no Kueue (kueue.x-k8s.io/v1beta2)",
                f"LocalQueue {name}",
                "leave --queue out",
            )
        queues = {one["metadata"]["name"]: one for one in listed.get("items") or []}
        if name not in queues:
            have = ", ".join(sorted(queues)) or "none"
            return Finding(
                "queue", "fail", f"no LocalQueue {name} in {cluster.namespace}", f"one of: {have}", "--queue NAME"
            )
        conditions = (queues[name].get("status") or {}).get("conditions") or []
        idle = next((one for one in conditions if one.get("type") == "Active" and one.get("status") == "False"), None)
        return judged(
            "queue", idle is None, f"LocalQueue {name} {'takes Jobs' if idle is None else 'is not active'}",
            "an active queue", str((idle or {}).get("message", "")),
        )  # fmt: skip

    return _looked("queue", look)

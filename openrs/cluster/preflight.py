"""Checks before a Job is created: can any node ever hold it, does what it needs exist, would the server accept it.

Changes nothing. Each line says what was found, what is needed and the fix. A check without permission is not a failure:
the Job's own events show the same later.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from openrs.cluster.api import ApiException, Cluster, Object, call_api, no_namespace, server_message
from openrs.cluster.control import KUEUE
from openrs.cluster.jobs import PLACEHOLDER, JobManifests
from openrs.cluster.nodes import fitting, needed, plain
from openrs.doctor.finding import Finding, judged
from openrs.errors import UserError

STRICT: dict[str, Any] = {"dry_run": "All", "field_validation": "Strict", "field_manager": "openrs"}


def examine(cluster: Cluster, manifests: JobManifests) -> list[Finding]:
    """All checks. Raises UserError for a namespace that does not exist and for rejected credentials."""
    pod = manifests.job["spec"]["template"]["spec"]
    findings = [
        _image(pod),
        _server(cluster, manifests),
        *_nodes(cluster, pod),
        _claim(cluster, manifests),
        _secret(cluster, pod),
    ]
    findings += _quota(cluster, manifests)
    queue = manifests.job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
    if queue is not None:
        findings.append(_queue(cluster, queue))
    return [finding for finding in findings if finding is not None]


def _looked(name: str, look: Callable[[], Finding | None]) -> Finding | None:
    """The check's result, or one that says that the permission is missing."""
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
            "image", "fail", "none: the manifests only have a placeholder", "the image of openrs in your registry",
            "give --image REGISTRY/openrs@sha256:..., or set OPENRS_IMAGE (docs/kubernetes.md)",
        )  # fmt: skip
    return Finding("image", "ok", image)


def _server(cluster: Cluster, manifests: JobManifests) -> Finding | None:
    """A server-side dry run of every object and of a Pod of the Job: PodSecurity and quota only check Pods."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": deepcopy(manifests.job["spec"]["template"]["metadata"]),
        "spec": deepcopy(manifests.job["spec"]["template"]["spec"]),
    }
    pod["metadata"]["name"] = f"{manifests.job['metadata']['name']}-preflight"
    tries = [
        ("Job", cluster.batch.create_namespaced_job, manifests.job),
        ("Pod", cluster.core.create_namespaced_pod, pod),
    ]
    if manifests.claim is not None:
        create = cluster.core.create_namespaced_persistent_volume_claim
        tries.insert(0, ("PersistentVolumeClaim", create, manifests.claim))
    untried = []
    for kind, call, thing in tries:
        try:
            call_api(call, cluster.namespace, thing, what=f"create a {kind}", **STRICT)
        except ApiException as error:
            if error.status == 409:  # exists already: submit handles it
                continue
            raise no_namespace(error, cluster.namespace) or UserError(server_message(error)) from None
        except UserError as error:
            if "cannot" in error.what and kind == "Pod":
                untried.append(kind)
                continue
            if error.what.startswith("not allowed"):
                raise
            full = "quota" in error.what  # other Jobs may end
            return Finding("API server", "warn" if full else "fail", error.what, "", error.fix)
    if untried:
        return Finding(
            "API server", "unknown", "accepts the Job; its Pod could not be checked (no permission to create Pods)"
        )
    return Finding("API server", "ok", "accepts the Job, its claim and its Pod (dry run, strict)")


def _nodes(cluster: Cluster, pod: Object) -> list[Finding | None]:
    def look() -> Finding:
        listed: list[Object] = call_api(cluster.core.list_node, what="list nodes").get("items") or []
        return fitting(listed, pod)

    return [_looked("nodes", look)]


# --- claim, secret, quota, queue --------------------------------------------------------------------------------------


def _claim(cluster: Cluster, manifests: JobManifests) -> Finding | None:
    volume = next(volume for volume in manifests.job["spec"]["template"]["spec"]["volumes"] if volume["name"] == "data")
    name = volume["persistentVolumeClaim"]["claimName"]

    def look() -> Finding:
        try:
            existing = call_api(
                cluster.core.read_namespaced_persistent_volume_claim, name, cluster.namespace, what=f"get claim {name}"
            )
        except ApiException as error:
            if error.status != 404:
                raise
            if manifests.claim is None:
                return Finding(
                    "claim", "fail", f"claim {name} does not exist", "", "leave out --claim to have one created"
                )
            return _class(cluster, manifests.claim, name)
        return _existing(existing, manifests, name)

    return _looked("claim", look)


def _existing(claim: Object, manifests: JobManifests, name: str) -> Finding:
    status = claim.get("status") or {}
    phase, size = status.get("phase"), (status.get("capacity") or claim["spec"]["resources"]["requests"]).get("storage")
    if claim["metadata"].get("deletionTimestamp") or phase == "Lost":
        return Finding(
            "claim",
            "fail",
            f"{name} is {'being deleted' if phase != 'Lost' else 'lost'}",
            "a claim",
            "wait, or name another with --claim",
        )
    wanted = manifests.claim["spec"]["resources"]["requests"]["storage"] if manifests.claim is not None else None
    if wanted is not None and size is not None and parse_quantity(size) < parse_quantity(wanted):
        return Finding(
            "claim", "warn", f"{name} exists, with {size}", f"{wanted} for all checkpoints",
            "enlarge it with kubectl patch, where its storage class allows that",
        )  # fmt: skip
    return Finding("claim", "ok", f"{name} exists ({phase}, {size}): its data are kept, and the run resumes from them")


def _class(cluster: Cluster, claim: Object, name: str) -> Finding:
    """A claim that will be created needs a storage class: the one it names, or the cluster's default."""
    size = claim["spec"]["resources"]["requests"]["storage"]
    wanted = claim["spec"].get("storageClassName")
    try:
        listed = call_api(cluster.storage.list_storage_class, what="list storage classes").get("items") or []
    except UserError as error:
        if "not allowed" not in error.what:
            raise
        return Finding("claim", "info", f"{name} will be created ({size}, class {wanted or 'the default'})")
    names = [item["metadata"]["name"] for item in listed]
    default = "storageclass.kubernetes.io/is-default-class"
    has_default = any((item["metadata"].get("annotations") or {}).get(default) == "true" for item in listed)
    good = wanted in names if wanted is not None else has_default
    have = f"classes: {', '.join(names)}" if names else "no storage class at all"
    needed_class = wanted if wanted is not None else "a default storage class"
    return judged(
        "claim",
        good,
        f"{name} will be created ({size}); {have}",
        f"{needed_class}",
        "choose one of those: --storage-class NAME",
    )


def _secret(cluster: Cluster, pod: Object) -> Finding | None:
    """The hub's token is optional. Only its metadata is requested: the value is never transferred."""
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
            return Finding("token", "info", f"no secret {name}; not needed for public models and data", "", make)
        return Finding("token", "ok", f"secret {name} exists; only the container fetch gets it")

    return _looked("token", look)


def metadata_of(cluster: Cluster, name: str) -> None:
    """Request a secret's metadata alone (PartialObjectMetadata). Raises ApiException 404, UserError."""

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

    call_api(call, what=f"get the secret {name}")


def _quota(cluster: Cluster, manifests: JobManifests) -> list[Finding | None]:
    needs = needed(manifests.job["spec"]["template"]["spec"])
    pods = int(manifests.job["spec"].get("parallelism", 1))

    def look() -> Finding | None:
        listed = call_api(cluster.core.list_namespaced_resource_quota, cluster.namespace, what="list quotas").get(
            "items"
        )
        if not listed:
            return None
        short = [entry for quota in listed for entry in shortages(quota, needs, pods)]
        never = [text for text, ever in short if not ever]
        return judged(
            "quota", not short, "; ".join(never or [text for text, _ in short]) or "leaves enough for the Job",
            "more than the whole quota" if never else "enough for its Pods",
            f"{'' if never else 'wait for other Jobs to end, or '}have it raised: kubectl describe resourcequota",
            bad="fail" if never else "warn",
        )  # fmt: skip

    return [_looked("quota", look)]


def shortages(quota: Object, needs: Mapping[str, Decimal], pods: int) -> list[tuple[str, bool]]:
    """What a quota does not leave for the Job's Pods: `requests.nvidia.com/gpu: 4 needed, 2 of 8 free`, and whether it
    ever can: its Pods also run one after another, so one must fit into the whole quota."""
    status = quota.get("status") or {}
    missing = []
    for key, amount in (status.get("hard") or {}).items():
        name = key.removeprefix("requests.").removeprefix("limits.")
        if name not in needs or (key == name and name not in {"cpu", "memory"}):
            continue
        hard, used = parse_quantity(amount), parse_quantity((status.get("used") or {}).get(key, "0"))
        if hard - used < needs[name] * pods:
            text = f"{key}: {plain(needs[name] * pods)} needed, {plain(hard - used)} of {plain(hard)} free"
            missing.append((text, hard >= needs[name]))
    return missing


def _queue(cluster: Cluster, name: str) -> Finding | None:
    where = (*KUEUE, cluster.namespace, "localqueues")

    def look() -> Finding:
        try:
            listed = call_api(cluster.custom.list_namespaced_custom_object, *where, what="list Kueue's LocalQueues")
        except ApiException as error:
            if error.status != 404:
                raise
            return Finding(
                "queue",
                "fail",
                "the cluster has no Kueue (kueue.x-k8s.io/v1beta2)",
                f"LocalQueue {name}",
                "leave out --queue",
            )
        queues = {item["metadata"]["name"]: item for item in listed.get("items") or []}
        if name not in queues:
            have = ", ".join(sorted(queues)) or "none"
            return Finding(
                "queue",
                "fail",
                f"no LocalQueue {name} in {cluster.namespace}",
                f"one of: {have}",
                "choose one of those: --queue NAME",
            )
        conditions = (queues[name].get("status") or {}).get("conditions") or []
        idle = next((c for c in conditions if c.get("type") == "Active" and c.get("status") == "False"), None)
        return judged(
            "queue", idle is None, f"LocalQueue {name} {'accepts Jobs' if idle is None else 'is not active'}",
            "an active queue", str((idle or {}).get("message", "")),
        )  # fmt: skip

    return _looked("queue", look)

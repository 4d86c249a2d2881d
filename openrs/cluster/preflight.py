"""Checks before a Job is created: can any node ever hold it, does what it needs exist, would the server accept it.

Changes nothing. Each line says what was found, what is needed and the fix. A check without permission is not a failure:
the Job's own events show the same later.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from decimal import Decimal
from functools import partial
from typing import Any

from kubernetes.client.exceptions import ApiException
from kubernetes.utils.quantity import parse_quantity

from openrs.cluster.api import Cluster, Object, call_api, get, list_items, no_namespace, server_message
from openrs.cluster.control import KUEUE
from openrs.cluster.jobs import PLACEHOLDER, JobManifests
from openrs.cluster.nodes import fitting, needed, plain
from openrs.cluster.reading import claim_of
from openrs.doctor.finding import Finding, judged
from openrs.errors import UserError

STRICT: dict[str, Any] = {"dry_run": "All", "field_validation": "Strict", "field_manager": "openrs"}


def examine(cluster: Cluster, manifests: JobManifests) -> list[Finding]:
    """All checks. Raises UserError for a namespace that does not exist and for rejected credentials."""
    pod = manifests.job["spec"]["template"]["spec"]
    checks: dict[str, Callable[[], Finding | None]] = {
        "nodes": lambda: fitting(list_items(cluster.core.list_node, what="list nodes"), pod),
        "claim": lambda: _claim(cluster, manifests),
        "token": lambda: _secret(cluster, pod),
        "quota": lambda: _quota(cluster, manifests),
    }
    queue = manifests.job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
    if queue is not None:
        checks["queue"] = lambda: _queue(cluster, queue)
    findings = [_image(pod), _server(cluster, manifests), *(_allowed(*check) for check in checks.items())]
    return [finding for finding in findings if finding is not None]


def _allowed(name: str, check: Callable[[], Finding | None]) -> Finding | None:
    """The check's result, or one that says that the permission is missing."""
    try:
        return check()
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


def _server(cluster: Cluster, manifests: JobManifests) -> Finding:
    """A server-side dry run of every object and of a Pod of the Job: PodSecurity and quota only check Pods."""
    pod = {"apiVersion": "v1", "kind": "Pod", **deepcopy(manifests.job["spec"]["template"])}
    pod["metadata"]["name"] = f"{manifests.job['metadata']['name']}-preflight"
    for thing in (*manifests.objects, pod):
        kind = thing["kind"]
        try:
            call_api(cluster.method("create", kind), cluster.namespace, thing, what=f"create a {kind}", **STRICT)
        except ApiException as error:
            if error.status == 409:  # exists already: submit handles it
                continue
            raise no_namespace(error, cluster.namespace) or UserError(server_message(error)) from None
        except UserError as error:
            if "cannot" in error.what and thing is pod:
                untried = "accepts the Job; its Pod could not be checked (no permission to create Pods)"
                return Finding("API server", "unknown", untried)
            if error.what.startswith("not allowed"):
                raise
            full = "quota" in error.what  # other Jobs may end
            return Finding("API server", "warn" if full else "fail", error.what, "", error.fix)
    return Finding("API server", "ok", "accepts the Job, its claim and its Pod (dry run, strict)")


def _claim(cluster: Cluster, manifests: JobManifests) -> Finding:
    name = str(claim_of(manifests.job))
    existing = get(cluster, "claim", name)
    if existing is not None:
        return _existing(existing, manifests, name)
    if manifests.claim is None:
        return Finding("claim", "fail", f"claim {name} does not exist", "", "leave out --claim to have one created")
    return _class(cluster, manifests.claim, name)


def _existing(claim: Object, manifests: JobManifests, name: str) -> Finding:
    status = claim.get("status") or {}
    phase, size = status.get("phase"), (status.get("capacity") or claim["spec"]["resources"]["requests"]).get("storage")
    if claim["metadata"].get("deletionTimestamp") or phase == "Lost":
        state = "lost" if phase == "Lost" else "being deleted"
        return Finding("claim", "fail", f"{name} is {state}", "a claim", "wait, or name another with --claim")
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
        listed = list_items(cluster.storage.list_storage_class, what="list storage classes")
    except UserError as error:
        if "not allowed" not in error.what:
            raise
        return Finding("claim", "info", f"{name} will be created ({size}, class {wanted or 'the default'})")
    names = [item["metadata"]["name"] for item in listed]
    default = "storageclass.kubernetes.io/is-default-class"
    has_default = any((item["metadata"].get("annotations") or {}).get(default) == "true" for item in listed)
    good = wanted in names if wanted is not None else has_default
    have = f"classes: {', '.join(names)}" if names else "no storage class at all"
    found, fix = f"{name} will be created ({size}); {have}", "choose one of those: --storage-class NAME"
    return judged("claim", good, found, wanted or "a default storage class", fix)


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
    metadata = partial(
        cluster.client.call_api,
        f"/api/v1/namespaces/{cluster.namespace}/secrets/{name}",
        "GET",
        header_params={"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"},
        auth_settings=["BearerToken"],
        response_types_map={},
        _return_http_data_only=True,
    )
    try:
        call_api(metadata, what=f"get the secret {name}")
    except ApiException as error:
        if error.status != 404:
            raise
        make = f"kubectl create secret generic {name} --from-literal=token=hf_..."
        return Finding("token", "info", f"no secret {name}; not needed for public models and data", "", make)
    return Finding("token", "ok", f"secret {name} exists; only the container fetch gets it")


def _quota(cluster: Cluster, manifests: JobManifests) -> Finding | None:
    needs = needed(manifests.job["spec"]["template"]["spec"])
    pods = int(manifests.job["spec"].get("parallelism", 1))
    listed = list_items(cluster.core.list_namespaced_resource_quota, cluster.namespace, what="list quotas")
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


def _queue(cluster: Cluster, name: str) -> Finding:
    where = (*KUEUE, cluster.namespace, "localqueues")
    try:
        listed = list_items(cluster.custom.list_namespaced_custom_object, *where, what="list Kueue's LocalQueues")
    except ApiException as error:
        if error.status != 404:
            raise
        missing = "the cluster has no Kueue (kueue.x-k8s.io/v1beta2)"
        return Finding("queue", "fail", missing, f"LocalQueue {name}", "leave out --queue")
    queues = {item["metadata"]["name"]: item for item in listed}
    if name not in queues:
        missing, have = f"no LocalQueue {name} in {cluster.namespace}", ", ".join(sorted(queues)) or "none"
        return Finding("queue", "fail", missing, f"one of: {have}", "choose one of those: --queue NAME")
    conditions = (queues[name].get("status") or {}).get("conditions") or []
    idle = next((c for c in conditions if c.get("type") == "Active" and c.get("status") == "False"), None)
    if idle is not None:
        why = str(idle.get("message", ""))
        return Finding("queue", "fail", f"LocalQueue {name} is not active", "an active queue", why)
    return Finding("queue", "ok", f"LocalQueue {name} accepts Jobs", "an active queue")

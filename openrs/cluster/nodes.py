"""Whether a node could ever hold a Pod: labels, taints, capacity, ignoring what runs there. Contacts no server."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from openrs.cluster.api import Object, labels
from openrs.doctor.finding import Finding

PRODUCT = "nvidia.com/gpu.product"
GPU = "nvidia.com/gpu"


def fitting(nodes: Sequence[Object], pod: Object) -> Finding:
    """Whether any of the nodes could ever hold the Pod, if nothing else ran there."""
    needs = needed(pod)
    requested = ", ".join(f"{plain(amount)} {name}" for name, amount in sorted(needs.items()))
    reasons: dict[str, int] = {}
    fit = 0
    for node in nodes:
        why = misfit(node, pod, needs)
        if why is None:
            fit += 1
        else:
            reasons[why] = reasons.get(why, 0) + 1
    if fit:
        return Finding("nodes", "ok", f"{fit} of {len(nodes)} could hold the Pod ({requested})")
    known = sorted({str(product) for node in nodes if (product := labels(node).get(PRODUCT))})
    fix = "add a node, or request less"
    if GPU in needs and known:
        fix = f"choose one of the cluster's GPUs with --gpu-product: {', '.join(known)} (see openrs plan --gpu)"
    elif GPU in needs:
        fix = "install NVIDIA's GPU operator (or gpu-feature-discovery): no node has the label nvidia.com/gpu.product"
    why = "; ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "there are no nodes"
    return Finding("nodes", "fail", f"none of {len(nodes)} can ever hold the Pod: {why}", requested, fix)


def misfit(node: Object, pod: Object, needs: Mapping[str, Decimal]) -> str | None:
    """Why a node cannot hold the Pod, not counting what runs there now; None when it can."""
    if not _matches(node, pod):
        return f"with another {PRODUCT} ({labels(node).get(PRODUCT, 'none')})"
    taint = _untolerated(node, pod)
    if taint is not None:
        return f"with a taint that the Job does not tolerate ({taint})"
    has = {name: parse_quantity(amount) for name, amount in (node["status"].get("allocatable") or {}).items()}
    for name in sorted(needs, key=lambda resource: resource != GPU):  # GPUs first
        if has.get(name, Decimal(0)) < needs[name]:
            return f"with {plain(has.get(name, Decimal(0)))} {name} instead of {plain(needs[name])}"
    return None


def needed(pod: Object) -> dict[str, Decimal]:
    """What the scheduler counts for a Pod: the sum of its containers, or its largest init container if that is more."""
    total: dict[str, Decimal] = {}
    for container in pod["containers"]:
        for name, amount in _requests(container).items():
            total[name] = total.get(name, Decimal(0)) + amount
    for container in pod.get("initContainers") or []:
        for name, amount in _requests(container).items():
            total[name] = max(total.get(name, Decimal(0)), amount)
    return total


def _requests(container: Object) -> dict[str, Decimal]:
    return {name: parse_quantity(amount) for name, amount in container["resources"].get("requests", {}).items()}


def plain(amount: Decimal) -> str:
    """16, 96Gi: as people write it."""
    for unit, name in ((2**30, "Gi"), (2**20, "Mi")):
        if amount >= unit:
            return f"{float(amount / unit):.4g}{name}"
    return f"{float(amount):.4g}"


def _matches(node: Object, pod: Object) -> bool:
    """The Job's node affinity (terms of In expressions: what k8s/ uses) and its nodeSelector."""
    has = labels(node)
    if any(has.get(key) != value for key, value in (pod.get("nodeSelector") or {}).items()):
        return False
    required = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not required:
        return True
    return any(
        all(has.get(rule["key"]) in rule["values"] for rule in term["matchExpressions"])
        for term in required["nodeSelectorTerms"]
    )


def _untolerated(node: Object, pod: Object) -> str | None:
    for taint in (node.get("spec") or {}).get("taints") or []:
        if taint.get("effect") == "PreferNoSchedule" or taint["key"] == "node.kubernetes.io/unschedulable":
            continue  # a preference, and a node that is only cordoned for now
        if not any(_tolerates(toleration, taint) for toleration in pod.get("tolerations") or []):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"{taint['key']}{value}:{taint.get('effect')}"
    return None


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in {None, "", taint.get("effect")}:
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in {None, "", taint["key"]}
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))

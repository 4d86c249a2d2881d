"""What Kubernetes says, in plain words: why a Pod waits, what it does, how it ended. Pure functions over its dicts."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from openrs.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REFUSED
from openrs.run.terminal import clean

Object = Mapping[str, Any]

# The scheduler's reasons (kube-scheduler's plugins, 1.31 to 1.37), and what they mean for somebody who wants GPUs.
_REASONS: Sequence[tuple[str, str]] = (
    (r"Insufficient nvidia\.com/gpu", "too few free GPUs (nvidia.com/gpu): in use, or the node has fewer"),
    (r"Insufficient cpu", "too little free CPU"),
    (r"Insufficient memory", "too little free memory"),
    (r"Insufficient ephemeral-storage", "too little free disk for temporary files (ephemeral-storage)"),
    (r"Insufficient (\S+)", r"too little free \1"),
    (r"Too many pods", "no room for another Pod"),
    (
        r"node\(s\) didn't match Pod's node affinity/selector",
        "another GPU than the Job asks for (nvidia.com/gpu.product), or none",
    ),
    (r"node\(s\) had untolerated taint\(s\)", "a taint that the Job does not tolerate"),
    (r"node\(s\) had untolerated taint \{([^}]*)\}", r"a taint that the Job does not tolerate (\1)"),
    (r"node\(s\) were unschedulable", "closed for new Pods (cordoned)"),
    (r"node\(s\) were not ready", "not ready"),
    (r"node\(s\) didn't match pod affinity rules", "not the node of the Job's other Pods, where the volume is"),
    (
        r"node\(s\) (?:had volume node affinity conflict|didn't match PersistentVolume's node affinity)",
        "in another place than the volume",
    ),
    (r"node\(s\) didn't find available persistent volumes to bind", "no volume of that class to bind"),
    (r"node\(s\) exceed max volume count", "no room for another volume"),
)
_PHRASES = ("in ", "not ", "closed ")  # after "3": the others after "3 with"

_WHOLE: Sequence[tuple[str, str]] = (
    (
        r"pod has unbound immediate PersistentVolumeClaims",
        "the volume claim is not bound yet: its storage class is at work, or there is no such class",
    ),
    (r'persistentvolumeclaim "([^"]+)" not found', r"there is no volume claim \1"),
    (r'persistentvolumeclaim "([^"]+)" is being deleted', r"the volume claim \1 is being deleted"),
)

_EVENTS = {
    "FailedAttachVolume": "the volume is still attached to another node; the cluster moves it in some minutes",
    "FailedMount": "the volume could not be mounted",
    "FailedCreate": "the Job's Pod could not be made",
    "ProvisioningFailed": "the volume could not be made",
    "NodeNotReady": "the node went away",
    "OOMKilling": "the node killed a process for memory",
    "TriggeredScaleUp": "the cluster makes a node for it",
    "NotTriggerScaleUp": "the cluster cannot make a node for it",
}
# Reasons of events that are worth a line although they are no warnings.
TELLING = _EVENTS.keys() | {
    "QuotaReserved", "Admitted", "Pending", "Preempted", "Preempting", "Evicted", "Suspended", "Resumed", "Stopped",
}  # fmt: skip
# Said better by the Pod's own state, or said again and again.
SILENT = {"BackOff", "Pulling", "Pulled", "Created", "Started", "Killing", "Scheduled", "SuccessfulCreate", "Unhealthy"}


def event(thing: Object) -> str | None:
    """An event as a line, or None for one that says nothing new."""
    reason, message = str(thing.get("reason") or ""), clean(str(thing.get("message") or "").strip())
    if reason == "FailedScheduling":
        return scheduling(message)
    if reason in SILENT or (thing.get("type") != "Warning" and reason not in TELLING):
        return None
    return f"{_EVENTS.get(reason, reason)}: {message}"


def scheduling(message: str) -> str:
    """`0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: ...` in words."""
    for pattern, words in _WHOLE:
        found = re.search(pattern, message)
        if found:
            return found.expand(words)
    counted = re.match(r"(\d+)/(\d+) nodes are available(?::\s*(.*))?", message, re.DOTALL)
    if counted is None:
        return f"no node yet: {message}"
    nodes = "node" if counted[2] == "1" else "nodes"
    head = f"{counted[1]} of {counted[2]} {nodes} can take the Pod"
    rest = re.split(r"\.\s*(?:no new claims to deallocate,?\s*)?(?:preemption:|$)", counted[3] or "", maxsplit=1)[0]
    told = [_one_reason(part) for part in _parts(rest)]
    return f"{head}: {'; '.join(told)}" if told else head


def _parts(text: str) -> list[str]:
    """`1 a, 2 b {x: y, z}, c` at the commas before a number: reasons have commas of their own."""
    return [part.strip().rstrip(".") for part in re.split(r",\s+(?=\d+ )", text) if part.strip(" .")]


def _one_reason(part: str) -> str:
    counted = re.match(r"(\d+) (.*)", part, re.DOTALL)
    number, text = (counted[1], counted[2]) if counted else ("", part)
    for pattern, words in _REASONS:
        found = re.match(pattern, text)
        if found:
            text = found.expand(words)
            break
    if not number:
        return text
    return f"{number} {text}" if text.startswith(_PHRASES) else f"{number} with {text}"


# --- Pods -------------------------------------------------------------------------------------------------------------

_WAITING = {
    "ErrImagePull": "the image cannot be pulled",
    "ImagePullBackOff": "the image cannot be pulled; it is tried again",
    "InvalidImageName": "this is no image's name",
    "ErrImageNeverPull": "the image is not on the node, and may not be pulled",
    "CreateContainerConfigError": "the container cannot be set up",
    "CreateContainerError": "the container cannot be made",
    "RunContainerError": "the container cannot be started",
    "CrashLoopBackOff": "it keeps ending; the next try waits",
}


def pod(thing: Object) -> str:
    """What a Pod does now, in one phrase that changes only when something happened."""
    meta, status = thing["metadata"], thing.get("status") or {}
    node = (thing.get("spec") or {}).get("nodeName")
    if meta.get("deletionTimestamp") and status.get("phase") not in {"Succeeded", "Failed"}:
        return "is being stopped; the trainer writes a checkpoint first"
    if status.get("phase") in {"Succeeded", "Failed"}:
        return ended(thing)
    for state in containers(thing):
        told = _container(state, str(node))
        if told is not None:
            return told
    if node:
        return f"has a place on {node}; image and volume are made ready"
    gates = (thing.get("spec") or {}).get("schedulingGates")
    return "is held back by a scheduling gate" if gates else "waits for a node"


def _container(state: Object, node: str) -> str | None:
    """What the container is about to be, is, or was when it failed; None for one that has done its part, or waits."""
    name, now = state["name"], state.get("state") or {}
    waiting, gone = now.get("waiting") or {}, now.get("terminated") or {}
    if waiting.get("reason") in _WAITING:
        return f"{name}: {_WAITING[waiting['reason']]}: {clean(str(waiting.get('message') or ''))}".rstrip(": ")
    if gone.get("exitCode"):
        return f"{name} ended with {exit_code(gone)}"
    return f"{name} runs on {node}" if "running" in now else None


def containers(thing: Object) -> list[Object]:
    """The states of a Pod's containers in the order in which they run."""
    status = thing.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def failure(thing: Object) -> tuple[str, int, str] | None:
    """The container that ended a Pod, its exit code and its last words; None when none failed."""
    for state in containers(thing):
        gone = (state.get("state") or {}).get("terminated")
        if gone and gone.get("exitCode"):
            return state["name"], int(gone["exitCode"]), clean(str(gone.get("message") or "").strip())
    return None


def ended(thing: Object) -> str:
    status = thing.get("status") or {}
    if status.get("phase") == "Succeeded":
        return "is done"
    found = failure(thing)
    if found is None:
        told = clean(str(status.get("message") or status.get("reason") or "no reason given"))
        return f"ended: {told}"
    gone = next(
        state["state"]["terminated"]
        for state in containers(thing)
        if ((state.get("state") or {}).get("terminated") or {}).get("exitCode")
    )
    disrupted = " (the node took it away: drained, preempted or evicted)" if disturbed(thing) else ""
    return f"{found[0]} ended with {exit_code(gone)}{disrupted}"


def disturbed(thing: Object) -> bool:
    """Whether the cluster, not the program, ended the Pod."""
    conditions = (thing.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "DisruptionTarget" and one.get("status") == "True" for one in conditions)


def exit_code(gone: Object) -> str:
    """`exit code 75: interrupted, and safe to go on`."""
    code = int(gone.get("exitCode") or 0)
    if gone.get("reason") == "OOMKilled":
        return f"exit code {code}: killed for memory; the container's limit is too small, or something leaks"
    meanings = {
        EXIT_FAILED: "a fault; the next Pod goes on from the last checkpoint",
        EXIT_REFUSED: "openrs refused: a retry cannot help",
        EXIT_INTERRUPTED: "interrupted at a safe place; the next Pod goes on there",
        137: "killed (SIGKILL), by the node or after the grace period",
        143: "ended by SIGTERM before it could write anything",
    }
    return f"exit code {code}: {meanings[code]}" if code in meanings else f"exit code {code}"


# --- Jobs -------------------------------------------------------------------------------------------------------------

_FAILED = {
    "DeadlineExceeded": "it took longer than activeDeadlineSeconds",
    "BackoffLimitExceeded": "its Pods failed too often (backoffLimit)",
    "PodFailurePolicy": "a retry could not help",
    "FailedIndexes": "some of its indexes failed too often",
    "MaxFailedIndexesExceeded": "too many of its indexes failed",
}


def condition(job: Object, kind: str) -> Object | None:
    found = (job.get("status") or {}).get("conditions") or []
    return next((one for one in found if one.get("type") == kind and one.get("status") == "True"), None)


def job_state(job: Object) -> str:
    """complete, failed, stopped (suspended), stopping, queued (suspended by Kueue), running, waiting."""
    status, spec = job.get("status") or {}, job["spec"]
    if condition(job, "Complete"):
        return "complete"
    if condition(job, "Failed"):
        return "failed"
    if spec.get("suspend"):
        if status.get("active") or status.get("terminating"):
            return "stopping"
        return "queued" if queue(job) else "stopped"
    return "running" if status.get("ready") else "waiting"


def queue(job: Object) -> str | None:
    """The Kueue queue of a Job, if it has one."""
    found = (job["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    return None if found is None else str(found)


def why_failed(job: Object) -> str:
    found = condition(job, "Failed") or {}
    reason = str(found.get("reason") or "")
    return f"{_FAILED.get(reason, reason or 'no reason given')}. {clean(str(found.get('message') or ''))}".strip()


def moment(text: str | None) -> datetime | None:
    return None if not text else datetime.fromisoformat(text)


def seconds_of(job: Object) -> float | None:
    """How long a Job has run, or ran; None before its start."""
    status = job.get("status") or {}
    begin = moment(status.get("startTime"))
    if begin is None:
        return None
    last = condition(job, "Complete") or condition(job, "Failed") or {}
    end = moment(status.get("completionTime") or last.get("lastTransitionTime")) or datetime.now(UTC)
    return (end - begin).total_seconds()

"""Kubernetes states and events in plain words: why a Pod waits, what it does, how it ended. Pure functions."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from openrs.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REFUSED
from openrs.run.terminal import clean

Object = Mapping[str, Any]

# The scheduler's reasons (kube-scheduler's plugins, 1.31 to 1.37) and their meaning for a Job that needs GPUs.
_REASONS: Sequence[tuple[str, str]] = (
    (r"Insufficient nvidia\.com/gpu", "too few free GPUs (nvidia.com/gpu): in use, or the node has fewer"),
    (r"Insufficient cpu", "too little free CPU"),
    (r"Insufficient memory", "too little free memory"),
    (r"Insufficient ephemeral-storage", "too little free disk for temporary files (ephemeral-storage)"),
    (r"Insufficient (\S+)", r"too little free \1"),
    (r"Too many pods", "no capacity for another Pod"),
    (
        r"node\(s\) didn't match Pod's node affinity/selector",
        "another GPU than the Job requests (nvidia.com/gpu.product), or none",
    ),
    (r"node\(s\) had untolerated taint\(s\)", "a taint that the Job does not tolerate"),
    (r"node\(s\) had untolerated taint \{([^}]*)\}", r"a taint that the Job does not tolerate (\1)"),
    (r"node\(s\) were unschedulable", "cordoned"),
    (r"node\(s\) were not ready", "not ready"),
    (r"node\(s\) didn't match pod affinity rules", "not the node of the Job's other Pods, where the volume is"),
    (
        r"node\(s\) (?:had volume node affinity conflict|didn't match PersistentVolume's node affinity)",
        "in another zone than the volume",
    ),
    (r"node\(s\) didn't find available persistent volumes to bind", "no volume of that class to bind"),
    (r"node\(s\) exceed max volume count", "no capacity for another volume"),
)
_PHRASES = ("in ", "not ", "cordoned")  # follow the count directly; the others follow "with"

_WHOLE: Sequence[tuple[str, str]] = (
    (
        r"pod has unbound immediate PersistentVolumeClaims",
        "the volume claim is not bound yet: its storage class is provisioning it, or does not exist",
    ),
    (r'persistentvolumeclaim "([^"]+)" not found', r"volume claim \1 does not exist"),
    (r'persistentvolumeclaim "([^"]+)" is being deleted', r"the volume claim \1 is being deleted"),
)

_EVENTS = {
    "FailedAttachVolume": "the volume is still attached to another node; this takes the cluster some minutes",
    "FailedMount": "the volume could not be mounted",
    "FailedCreate": "the Job's Pod could not be created",
    "ProvisioningFailed": "the volume could not be created",
    "NodeNotReady": "the node is not ready",
    "OOMKilling": "the node killed a process that exceeded its memory",
    "TriggeredScaleUp": "the cluster adds a node for it",
    "NotTriggerScaleUp": "the cluster cannot add a node for it",
}
# Reasons of events that are printed although they are not warnings.
TELLING = _EVENTS.keys() | {
    "QuotaReserved", "Admitted", "Pending", "Preempted", "Preempting", "Evicted", "Suspended", "Resumed", "Stopped",
}  # fmt: skip
SILENT = {"BackOff", "Failed", "Unhealthy"}  # warnings that repeat, and that the Pod's own state says better


def kind_of_event(thing: Object) -> str:
    """What events that say the same have in common: the Job controller makes up a new name for each Pod it tries."""
    involved = thing.get("involvedObject") or {}
    message = re.sub(r'(pods? "?[a-z0-9.-]+-)[a-z0-9]{5}\b', r"\1...", str(thing.get("message") or ""))
    return f"{involved.get('kind')} {thing.get('reason')} {message}"


def about(thing: Object, job: str, pods: Collection[str], claim: str | None) -> bool:
    """Whether an event is about a Job, one of its Pods (also of those that are gone) or its claim. Pods of a Job called
    openrs-a are openrs-a-xxxxx, with letters that make no words: openrs-a-seeds is another Job's."""
    involved = thing.get("involvedObject") or {}
    kind, name = involved.get("kind"), str(involved.get("name") or "")
    if kind == "Pod":
        tried = re.fullmatch(re.escape(job) + r"-(\d+-)?[bcdfghjklmnpqrstvwxz2456789]{5}", name)
        return name in pods or tried is not None
    return name == (claim if kind == "PersistentVolumeClaim" else job)


def event(thing: Object) -> str | None:
    """An event as a line, or None for one that adds nothing."""
    reason, message = str(thing.get("reason") or ""), clean(str(thing.get("message") or "").strip())
    if reason == "FailedScheduling":
        return scheduling(message)
    if reason in SILENT or (thing.get("type") != "Warning" and reason not in TELLING):
        return None
    return f"{_EVENTS.get(reason, reason)}: {message}"


def scheduling(message: str) -> str:
    """`0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: ...` in words."""
    for pattern, words in _WHOLE:
        matched = re.search(pattern, message)
        if matched:
            return matched.expand(words)
    counted = re.match(r"(\d+)/(\d+) nodes are available(?::\s*(.*))?", message, re.DOTALL)
    if counted is None:
        return f"no node yet: {message}"
    nodes = "node" if counted[2] == "1" else "nodes"
    head = f"{counted[1]} of {counted[2]} {nodes} can take the Pod"
    rest = re.split(r"\.\s*(?:no new claims to deallocate,?\s*)?(?:preemption:|$)", counted[3] or "", maxsplit=1)[0]
    reasons = [_reason(part) for part in _parts(rest)]
    return f"{head}: {'; '.join(reasons)}" if reasons else head


def _parts(text: str) -> list[str]:
    """`1 a, 2 b {x: y, z}, c` at the commas before a number: reasons have commas of their own."""
    return [part.strip().rstrip(".") for part in re.split(r",\s+(?=\d+ )", text) if part.strip(" .")]


def _reason(part: str) -> str:
    counted = re.match(r"(\d+) (.*)", part, re.DOTALL)
    number, text = (counted[1], counted[2]) if counted else ("", part)
    for pattern, words in _REASONS:
        matched = re.match(pattern, text)
        if matched:
            text = matched.expand(words)
            break
    if not number:
        return text
    return f"{number} {text}" if text.startswith(_PHRASES) else f"{number} with {text}"


# --- Pods -------------------------------------------------------------------------------------------------------------

_WAITING = {
    "ErrImagePull": "the image cannot be pulled",
    "ImagePullBackOff": "the image cannot be pulled",
    "InvalidImageName": "this is not a valid image name",
    "ErrImageNeverPull": "the image is not on the node, and the pull policy forbids pulling it",
    "CreateContainerConfigError": "the container cannot be set up",
    "CreateContainerError": "the container cannot be created",
    "RunContainerError": "the container cannot be started",
    "CrashLoopBackOff": "it keeps failing; the next start is delayed",
}


def is_over(pod: Object) -> bool:
    """Whether a Pod has ended, well or badly."""
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def pod(thing: Object) -> str:
    """What a Pod does now, in a phrase that changes only with its state."""
    if is_over(thing):
        return ended(thing)
    if thing["metadata"].get("deletionTimestamp"):
        return "is being stopped; the trainer writes a checkpoint first"
    node = (thing.get("spec") or {}).get("nodeName")
    for state in containers(thing):
        text = _container(state, str(node))
        if text is not None:
            return text
    past = [state["name"] for state in containers(thing) if "terminated" in (state.get("state") or {})]
    if past:  # a moment between two containers
        return f"has {past[-1]} behind it"
    if node:
        return f"is scheduled on {node}; image and volume are being prepared"
    gates = (thing.get("spec") or {}).get("schedulingGates")
    return "is held back by a scheduling gate" if gates else "waits for a node"


def _container(state: Object, node: str) -> str | None:
    """A container's problem, state or failure; None for one that is done or has not started."""
    name, now = state["name"], state.get("state") or {}
    waiting, gone = now.get("waiting") or {}, now.get("terminated") or {}
    if waiting.get("reason") in _WAITING:
        return f"{name}: {_WAITING[waiting['reason']]}: {clean(str(waiting.get('message') or ''))}".rstrip(": ")
    if gone.get("exitCode"):
        return f"{name} ended with {exit_code(gone)}"
    return f"{name} runs on {node}" if "running" in now else None


def image_trouble(thing: Object) -> tuple[str, bool] | None:
    """Why a Pod's image is not there, and whether that can pass; None while nothing is wrong with it."""
    for state in containers(thing):
        waiting = (state.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason in {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}:
            return _container(state, "") or "", reason in {"ErrImagePull", "ImagePullBackOff"}
    return None


def containers(thing: Object) -> list[Object]:
    """The states of a Pod's containers in the order in which they run."""
    status = thing.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


class Failure(NamedTuple):
    """A container that failed. why: its exit code in words; message: what it left in its termination log."""

    container: str
    code: int
    why: str
    message: str


def failure(thing: Object) -> Failure | None:
    """The first container of a Pod that failed; None when none did."""
    for state in containers(thing):
        gone = (state.get("state") or {}).get("terminated")
        if gone and gone.get("exitCode"):
            message = clean(str(gone.get("message") or "").strip())
            return Failure(state["name"], int(gone["exitCode"]), exit_code(gone), message)
    return None


def ended(thing: Object) -> str:
    status = thing.get("status") or {}
    if status.get("phase") == "Succeeded":
        return "is done"
    failed = failure(thing)
    if failed is None:
        message = clean(str(status.get("message") or status.get("reason") or "no reason given"))
        return f"ended: {message}"
    disrupted = " (drained, preempted or evicted)" if disturbed(thing) else ""
    return f"{failed.container} ended with {failed.why}{disrupted}"


def disturbed(thing: Object) -> bool:
    """Whether the cluster, not the program, ended the Pod."""
    conditions = (thing.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "DisruptionTarget" and c.get("status") == "True" for c in conditions)


def exit_code(gone: Object) -> str:
    """`exit code 75: interrupted at a step boundary; ...`."""
    code = int(gone.get("exitCode") or 0)
    if gone.get("reason") == "OOMKilled":
        return f"exit code {code}: killed for exceeding its memory limit"
    meanings = {
        EXIT_FAILED: "failed; the next Pod resumes from the last checkpoint",
        EXIT_REFUSED: "bad configuration or data: a retry cannot help",
        EXIT_INTERRUPTED: "interrupted with a checkpoint; the next Pod resumes there",
        137: "killed (SIGKILL), by the node or after the grace period",
        143: "ended by SIGTERM before it could write anything",
    }
    return f"exit code {code}: {meanings[code]}" if code in meanings else f"exit code {code}"


# --- Jobs -------------------------------------------------------------------------------------------------------------

_FAILED = {
    "DeadlineExceeded": "it took longer than activeDeadlineSeconds",
    "BackoffLimitExceeded": "its Pods failed too many times (backoffLimit)",
    "PodFailurePolicy": "a retry could not help",
    "FailedIndexes": "some of its indexes failed too many times",
    "MaxFailedIndexesExceeded": "too many of its indexes failed",
}


def condition(job: Object, kind: str) -> Object | None:
    conditions = (job.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind and c.get("status") == "True"), None)


def job_state(job: Object, pods: Collection[Object] = ()) -> str:
    """complete, failed, stopped (suspended), stopping, queued (suspended by Kueue), running, waiting.

    A Pod that fetches or measures NCCL is not ready: only with `pods` such a Job counts as running."""
    status, spec = job.get("status") or {}, job["spec"]
    if condition(job, "Complete"):
        return "complete"
    if condition(job, "Failed"):
        return "failed"
    if spec.get("suspend"):
        if status.get("active") or status.get("terminating"):
            return "stopping"
        return "queued" if queue(job) else "stopped"
    busy = any("running" in (state.get("state") or {}) for thing in pods for state in containers(thing))
    return "running" if status.get("ready") or busy else "waiting"


def next_try(job: Object, pods: Collection[Object]) -> str | None:
    """When the Job controller makes the next Pod; None where it is not waiting to.

    After Pods that failed, whatever the exit code, 10 s, 20 s, 40 s ... up to 10 min from the end of the last
    (kubernetes pkg/controller/job/backoff_utils.go)."""
    failed = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Failed" and not disturbed(pod)]
    if job_state(job) != "waiting" or not failed or not all(map(is_over, pods)):
        return None
    pause = min(10 * 2 ** (len(failed) - 1), 600)
    last = "1 Pod" if len(failed) == 1 else f"{len(failed)} Pods"
    return f"the next Pod comes {pause} s after the last one's end, because {last} ended early (docs/kubernetes.md)"


def queue(job: Object) -> str | None:
    """The Kueue queue of a Job, if it has one."""
    name = (job["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    return None if name is None else str(name)


def why_failed(job: Object) -> str:
    failed = condition(job, "Failed") or {}
    reason = str(failed.get("reason") or "")
    return f"{_FAILED.get(reason, reason or 'no reason given')}. {clean(str(failed.get('message') or ''))}".strip()


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

"""Follow a Job to its end: its Pods, why they wait, what they print, how it ended. Detaching changes nothing."""

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from openrs.cluster import words
from openrs.cluster.api import Cluster, Object
from openrs.cluster.reading import claim_of, pods, run_of
from openrs.cluster.screen import Screen
from openrs.cluster.watch import OutageNotifier, feed_thread, log_of, watched
from openrs.errors import EXIT_REFUSED, Interrupted, RunFailure, UserError
from openrs.run.units import format_duration

DRAIN = 20.0  # seconds for the last lines of the logs after the Job has ended
IMAGE_RETRY_S = 600.0  # seconds that an image may not be there before following ends
TAIL_LINES = 20  # lines of existing log to start with, when the Job ran before we followed it


@dataclass(frozen=True, slots=True)
class End:
    """How the Job ended. code: exit code of the container that failed, None when unknown."""

    state: Literal["complete", "failed", "stopped", "deleted"]
    text: str
    code: int | None = None


def follow(cluster: Cluster, job: Object, screen: Screen, *, tail: int | None = None) -> End:
    """Report on the Job until it ends. Ctrl-C raises Interrupted, and the Job keeps running.

    tail: start with at most so many lines of an existing log. Raises UserError for missing permissions, RunFailure when
    the API server does not respond for api.FOLLOW_RETRY_S seconds.
    """
    follower = _Follower(cluster, job, screen, tail)
    name, run = job["metadata"]["name"], run_of(job)
    try:
        return follower.run()
    except KeyboardInterrupt:
        screen.close()
        raise Interrupted(
            f"detached; Job {name} keeps running\n"
            f"  follow it again: openrs cluster logs -f {run}\n"
            f"  stop it, with a checkpoint: openrs cluster stop {run}"
        ) from None
    finally:
        follower.stop.set()
        screen.close()


def conclude(end: End) -> None:
    """End the command as the Job ended; returns for a complete one. Raises UserError, RunFailure, Interrupted."""
    if end.state == "complete":
        return
    if end.state == "failed":
        raise (UserError if end.code == EXIT_REFUSED else RunFailure)(end.text)
    raise Interrupted(end.text)


class _Follower:
    """Three watches and a thread for each Pod's logs put events into one queue; this thread prints them."""

    def __init__(self, cluster: Cluster, job: Object, screen: Screen, tail: int | None) -> None:
        self.stop = threading.Event()
        self._cluster, self._job, self._screen, self._tail = cluster, job, screen, tail
        self._name = job["metadata"]["name"]
        self._notifier = OutageNotifier(screen.say)
        self._queue: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self._pods: dict[str, Object] = {}
        self._announced: dict[str, str] = {}
        self._events: Counter[str] = Counter()  # how often each kind of event was seen
        self._no_image: dict[str, float] = {}  # Pods whose image cannot be pulled, and since when
        self._logs: dict[str, threading.Thread] = {}
        self._there = False  # whether the Job has been seen
        self._last: words.Failure | None = None  # the container that failed last

    def run(self) -> End:
        namespace = self._cluster.namespace
        own = f"batch.kubernetes.io/job-name={self._name}"
        for kind, listing, what, selector in (
            ("job", self._cluster.batch.list_namespaced_job, "Jobs", {"field_selector": f"metadata.name={self._name}"}),
            ("pod", self._cluster.core.list_namespaced_pod, "Pods", {"label_selector": own}),
            ("event", self._cluster.core.list_namespaced_event, "events", {}),
        ):
            self._start(kind, watched(listing, namespace, self.stop, self._notifier, what=what, **selector))
        while True:
            kind, change, thing = self._queue.get()
            end = self._see(kind, change, thing)
            if end is not None:
                self._drain()
                return self._with_code(end)

    def _start(self, kind: str, feed: Iterable[Any]) -> threading.Thread:
        def put(change: Any) -> None:
            self._queue.put(("error", kind, change) if isinstance(change, Exception) else (kind, *change))

        return feed_thread(kind, feed, put)

    def _see(self, kind: str, change: str, thing: Any) -> End | None:
        if change == "LISTED":
            there = kind != "job" or self._there
            return None if there else End("deleted", f"Job {self._name} no longer exists; its claim does")
        match kind:
            case "line":
                self._screen.log(change, thing)
            case "event":
                self._event(thing)
            case "pod":
                self._pod(change, thing)
            case "job":
                return self._job_changed(change, thing)
            case "error":
                self._error(change, thing)
        return None

    def _error(self, kind: str, error: Exception) -> None:
        if self.stop.is_set():
            return
        if kind in {"event", "line"} and isinstance(error, UserError):  # following works without them
            self._screen.say(str(error))
            return
        raise error

    # --- Pods and their logs

    def _pod(self, change: str, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if change == "DELETED":
            self._pods.pop(name, None)
            self._no_image.pop(name, None)
            self._announce(name, f"Pod {name} is deleted")
            return
        self._pods[name] = pod
        self._last = words.failure(pod) or self._last
        self._image(pod)
        if words.image_trouble(pod) is None:
            self._announce(name, f"Pod {name} {words.pod(pod)}")
        after = words.next_try(self._job, self._pods.values())
        if after is not None:
            self._announce("next", after)
        if name not in self._logs and any(
            "waiting" not in (status.get("state") or {}) for status in words.containers(pod)
        ):
            self._logs[name] = self._start("line", self._lines(pod))

    def _image(self, pod: Object) -> None:
        """Say once that the image cannot be pulled. Raises UserError when it stays so: a registry has bad minutes, a
        wrong name or a missing secret never a good one."""
        name, trouble = pod["metadata"]["name"], words.image_trouble(pod)
        if trouble is None:
            if words.containers(pod):
                self._no_image.pop(name, None)
            return
        text, passes = trouble
        now = time.monotonic()
        if name not in self._no_image:
            self._no_image[name] = now
            self._screen.say(f"Pod {name}: {text}")
        if any((other.get("status") or {}).get("phase") == "Running" for other in self._pods.values()):
            return  # of a Job with several Pods: these go on
        if not passes or now - self._no_image[name] >= IMAGE_RETRY_S:
            run = run_of(self._job)
            raise UserError(
                f"Job {self._name} cannot start: {text}",
                fix=f"openrs cluster delete {run} (the claim is kept), then submit with the right --image, and with"
                " --pull-secret NAME for a private registry (docs/kubernetes.md)",
            )

    def _lines(self, pod: Object) -> Iterable[tuple[str, str]]:
        """(prefix, line) of all containers of a Pod, one after the other."""
        name, spec = pod["metadata"]["name"], pod["spec"]
        index = (pod["metadata"].get("annotations") or {}).get("batch.kubernetes.io/job-completion-index")
        first = [container["name"] for container in spec.get("initContainers") or []]
        for container in [*first, *(container["name"] for container in spec["containers"])]:
            words_before = [word for word in (index, container if container in first else None) if word is not None]
            prefix = f"[{' '.join(words_before)}] " if words_before else ""
            look = partial(self._pods.get, name)
            for line in log_of(
                self._cluster, name, container, look, stop=self.stop, notifier=self._notifier, tail=self._tail
            ):
                yield prefix, line

    def _announce(self, about: str, text: str) -> None:
        if self._announced.get(about) != text:
            self._announced[about] = text
            self._screen.say(text)

    def _event(self, event: Object) -> None:
        about = event.get("involvedObject") or {}
        ours = words.about(event, self._name, self._pods, claim_of(self._job))
        old = (about.get("kind") == "Pod" and about.get("name") not in self._pods) or (
            about.get("kind") == "Job" and about.get("uid") not in {None, self._job["metadata"].get("uid")}
        )
        text = words.event(event)
        if not ours or old or text is None:
            return
        kind = words.kind_of_event(event)
        self._events[kind] += 1
        times = self._events[kind]
        if times in {1, 10, 100, 1000}:
            self._screen.say(text if times == 1 else f"{text} ({times} times so far)")

    # --- the Job

    def _job_changed(self, change: str, job: Object) -> End | None:
        if change == "DELETED":
            return End("deleted", f"Job {self._name} was deleted; its claim still exists")
        self._job, self._there = job, True
        state, run = words.job_state(job), run_of(job)
        took = words.seconds_of(job)
        after = f" after {format_duration(took)}" if took is not None else ""
        if state == "complete":
            return End(
                "complete", f"Job {self._name} is complete{after}; fetch its results with openrs cluster collect {run}"
            )
        if state == "failed":
            return End("failed", f"Job {self._name} failed{after}: {words.why_failed(job)}")
        if state == "stopped":
            return End("stopped", f"Job {self._name} is stopped; the same `openrs cluster submit` resumes it")
        if state == "queued":
            self._announce("job", f"Job {self._name} waits in Kueue's queue {words.queue(job)} for quota")
        elif state == "stopping":
            self._announce("job", f"Job {self._name} is being stopped")
        elif state == "running":
            self._announced.pop("job", None)
        return None

    def _drain(self) -> None:
        """Read the last lines, and how the last Pods ended: the Job's event may arrive before theirs."""
        with contextlib.suppress(UserError):
            for pod in pods(self._cluster, self._name):
                self._pod("MODIFIED", pod)
        end = time.monotonic() + DRAIN
        while time.monotonic() < end and (
            any(thread.is_alive() for thread in self._logs.values()) or not self._queue.empty()
        ):
            try:
                kind, change, thing = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if kind in {"line", "pod"}:
                self._see(kind, change, thing)

    def _with_code(self, end: End) -> End:
        if end.state != "failed" or self._last is None:
            return end
        last = [f"  | {line}" for line in self._last.message.splitlines()[-6:]]
        return End(
            "failed", "\n".join([end.text, f"  {self._last.container}: {self._last.why}", *last]), self._last.code
        )

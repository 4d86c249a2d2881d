"""Watches and logs that survive dropped connections, 410 Gone, 429, 500, and minutes without a server."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kubernetes.client.exceptions import ApiException

from openrs.cluster import api
from openrs.cluster.api import Cluster, Denied, Expired, Object, ServerUnavailable
from openrs.cluster.words import containers, is_over
from openrs.errors import UserError

WATCH = 240  # seconds after which the server ends a watch, and the next one starts where it ended
QUIET = 150.0  # seconds without a log line before the connection counts as dead and is reopened
WORRY = 3.0  # seconds before we report that the server does not respond
OVERLAP = 60  # seconds of log read again after a break; known lines are recognised by their timestamps
Say = Callable[[str], None]


class OutageNotifier:
    """Reports once that the server does not respond, and once that it does again, however many connections notice."""

    def __init__(self, say: Say) -> None:
        self._say, self._is_down, self._lock = say, False, threading.Lock()
        self.allowed: set[str] = set()  # what the server has let us do: a refusal of it is an outage

    def down(self, error: ServerUnavailable | Denied) -> None:
        with self._lock:
            was_down, self._is_down = self._is_down, True
        if was_down:
            return
        if isinstance(error, Denied):
            text = f"the API server refuses what it allowed before, as one that restarts does ({error.what})"
        else:
            text = f"the API server does not respond ({error.why})"
        self._say(f"{text}; retrying. The Job is not affected")

    def up(self) -> None:
        with self._lock:
            was_down, self._is_down = self._is_down, False
        if was_down:
            self._say("the API server responds again")


class RetryBackoff:
    """How long the server has not responded, for one connection; any response resets it. kind: what is asked for."""

    def __init__(self, kind: str, what: str, notifier: OutageNotifier) -> None:
        self._kind, self._what, self._notifier = kind, what, notifier
        self._since: float | None = None
        self._denied: float | None = None  # since when it is refused: the time without a server does not count
        self._pause = api.FIRST_PAUSE_S

    def wait(self, error: ServerUnavailable | Denied) -> None:
        """Sleep before the next attempt. Raises RunFailure when it has been too long, and Denied for what never was
        allowed, or is not any more."""
        now = time.monotonic()
        self._since = self._since or now
        waited = now - self._since
        if isinstance(error, Denied):
            self._denied = self._denied or now
            if self._kind not in self._notifier.allowed or now - self._denied > api.DENIED_RETRY_S:
                raise error
        elif waited > api.FOLLOW_RETRY_S:
            raise api.server_unreachable(self._what, error.why, waited)
        if waited > WORRY:
            self._notifier.down(error)
        time.sleep(getattr(error, "after", None) or self._pause)
        self._pause = min(2 * self._pause, api.LONGEST_PAUSE_S)

    def answered(self) -> None:
        self._notifier.allowed.add(self._kind)
        if self._since is not None:
            self._notifier.up()
        self._since, self._denied, self._pause = None, None, api.FIRST_PAUSE_S


def feed_thread(name: str, feed: Iterable[Any], put: Callable[[Any], None]) -> threading.Thread:
    """What `feed` yields, put by a thread of its own; last the exception that ended it, if one did."""

    def work() -> None:
        try:
            for change in feed:
                put(change)
        except Exception as error:  # noqa: BLE001 - fault boundary: the main thread reports a thread's error
            put(error)

    thread = threading.Thread(target=work, daemon=True, name=f"openrs-{name}")
    thread.start()
    return thread


def watched(
    listing: Callable[..., Any],
    namespace: str,
    stop: threading.Event,
    notifier: OutageNotifier,
    *,
    what: str,
    **selector: str,
) -> Iterator[tuple[str, Object]]:
    """(ADDED, MODIFIED or DELETED, object) until `stop`: first what exists, then every change. None gets lost:
    after a break the watch continues from the last version it saw, or lists again and yields the differences. After
    each such list comes LISTED, with an empty object.

    Raises UserError when refused, RunFailure when the server does not respond for api.FOLLOW_RETRY_S seconds.
    """
    version: str | None = None
    known: dict[str, Object] = {}
    backoff = RetryBackoff(what, what, notifier)
    while not stop.is_set():
        try:
            if version is None:
                listed = api.call_once(listing, namespace, what=f"list {what}", **selector)
                version = (listed.get("metadata") or {}).get("resourceVersion") or "0"
                backoff.answered()
                yield from _difference(known, listed.get("items") or [])
                yield "LISTED", {}
            for kind, thing in _changes(listing, namespace, version, what, selector):
                backoff.answered()
                version = (thing.get("metadata") or {}).get("resourceVersion") or version
                if kind == "BOOKMARK":
                    continue
                if kind == "DELETED":
                    known.pop(_key(thing), None)
                else:
                    known[_key(thing)] = thing
                yield kind, thing
            backoff.answered()
            time.sleep(0.2)  # do not flood a server that ends each watch at once
        except Expired:
            version = None
        except (ServerUnavailable, Denied) as error:
            backoff.wait(error)


def _changes(
    listing: Callable[..., Any], namespace: str, version: str, what: str, selector: dict[str, str]
) -> Iterator[tuple[str, Object]]:
    """One watch, until the server ends it. Raises Expired, ServerUnavailable, UserError."""
    response = api.open_response(
        listing,
        namespace,
        watch=True,
        resource_version=version,
        allow_watch_bookmarks=True,
        timeout_seconds=WATCH,
        read=WATCH + 15.0,
        what=f"watch {what}",
        **selector,
    )
    for line in api.lines(response):
        if not line.strip():
            continue
        try:
            change = json.loads(line)
            kind, thing = change["type"], change["object"]
        except (ValueError, KeyError, TypeError):
            raise ServerUnavailable("truncated response") from None
        if kind == "ERROR":
            if thing.get("code") == 410:
                raise Expired(thing.get("message", ""))
            raise ServerUnavailable(f"{thing.get('code')} {thing.get('reason')}")
        yield kind, thing


def _difference(known: dict[str, Object], listed: list[Object]) -> Iterator[tuple[str, Object]]:
    """Changes between what was known and a new list, including what was deleted in the meantime."""
    here = {_key(thing): thing for thing in listed}
    for key in [key for key in known if key not in here]:
        yield "DELETED", known.pop(key)
    for key, thing in here.items():
        before = known.get(key)
        known[key] = thing
        if before != thing:
            yield ("ADDED" if before is None else "MODIFIED"), thing


def _key(thing: Object) -> str:
    return str(thing["metadata"].get("uid") or thing["metadata"].get("name"))


# --- logs -------------------------------------------------------------------------------------------------------------


class PodDeleted(Exception):  # noqa: N818 - a state of the Pod, not a fault
    """The Pod was deleted, and its log with it."""


def log_of(
    cluster: Cluster,
    pod: str,
    container: str,
    look: Callable[[], Object | None],
    *,
    stop: threading.Event,
    notifier: OutageNotifier,
    tail: int | None = None,
) -> Iterator[str]:
    """The lines of a container's log as they come, to its end, each once, over any number of broken connections.

    look: the Pod as it is now; None when it is gone. tail: start with at most so many existing lines.
    """
    seen = LogDeduplicator()
    backoff = RetryBackoff("logs", f"the log of {pod}", notifier)
    while not stop.is_set():
        thing = look()
        if thing is None:
            return
        state = _state(thing, container)
        if state == "waiting":
            if is_over(thing):
                return  # it never ran
            stop.wait(0.5)
            continue
        try:
            for line in _read(cluster, pod, container, follow=state == "running", seen=seen, tail=tail):
                backoff.answered()
                yield line
            backoff.answered()
            if state == "terminated":
                return
            stop.wait(0.3)  # the container or the connection ended; the next state shows which
        except PodDeleted:
            return
        except (ServerUnavailable, Denied) as error:
            if isinstance(error, Denied) or error.why != "no response in time":  # a quiet log is not an outage
                backoff.wait(error)


def _read(
    cluster: Cluster, pod: str, container: str, *, follow: bool, seen: "LogDeduplicator", tail: int | None
) -> Iterator[str]:
    options: dict[str, Any] = {"container": container, "follow": follow, "timestamps": True}
    if seen.last:
        options["since_seconds"] = int(time.monotonic() - seen.at) + OVERLAP
    elif tail is not None:
        options["tail_lines"] = tail
    try:
        response = api.open_response(
            cluster.core.read_namespaced_pod_log,
            pod,
            cluster.namespace,
            what=f"get the log of Pod {pod}",
            read=QUIET,
            **options,
        )
    except ApiException as error:
        if error.status == 404:
            raise PodDeleted from None
        raise
    except UserError as error:
        if "is waiting to start" in str(error) or "is terminated" in str(error) or "not found" in str(error):
            raise ServerUnavailable("the container is not ready") from None
        raise
    seen.again()
    for line in api.lines(response):
        moment, _, text = line.decode("utf-8", "replace").partition(" ")
        if seen.new(moment):
            yield text


class LogDeduplicator:
    """Which log lines were printed already: by timestamp, and by number among those with the same timestamp."""

    def __init__(self) -> None:
        self.last, self._count, self._skip = "", 0, 0
        self.at = time.monotonic()

    def again(self) -> None:
        """The log is read again, starting some time before the last line."""
        self._skip = self._count

    def new(self, moment: str) -> bool:
        key = comparable(moment)
        if key < self.last:
            return False
        if key == self.last and self._skip > 0:
            self._skip -= 1
            return False
        self._count = self._count + 1 if key == self.last else 1
        self._skip = 0 if key != self.last else self._skip
        self.last, self.at = key, time.monotonic()
        return True


def comparable(moment: str) -> str:
    """RFC 3339 with nanoseconds, whose last zeros the server leaves out, as a string that sorts by time."""
    whole, _, fraction = moment.rstrip("Z").partition(".")
    return f"{whole}.{fraction[:9]:0<9}"


def _state(thing: Object, container: str) -> str:
    """waiting, running or terminated."""
    states = (status.get("state") or {} for status in containers(thing) if status["name"] == container)
    return next(iter(next(states, {})), "waiting")

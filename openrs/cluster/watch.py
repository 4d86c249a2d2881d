"""Watches that survive a dropped connection, 410 Gone, 429, 500, a server that is away for minutes. Logs that
do."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from openrs.cluster import api
from openrs.cluster.api import (
    PATIENT,
    ApiException,
    Cluster,
    Expired,
    Object,
    ServerUnavailable,
    lines,
    once,
    opened,
    silent,
)
from openrs.cluster.words import containers
from openrs.errors import UserError

WATCH = 240  # seconds after which the server ends a watch, and we begin the next one where it ended
QUIET = 150.0  # seconds without a line of log before the connection is taken for dead and made anew
WORRY = 3.0  # seconds of silence before we say that the server is away
OVERLAP = 60  # seconds of log that are asked for again after a break; what was there is recognised by its time
Say = Callable[[str], None]


class OutageNotifier:
    """Says once that the server is away, and once that it is back, however many connections notice."""

    def __init__(self, say: Say) -> None:
        self._say, self._away, self._lock = say, False, threading.Lock()

    def away(self, why: str) -> None:
        with self._lock:
            told, self._away = self._away, True
        if not told:
            self._say(f"the API server does not answer ({why}); asking again. Nothing happens to the Job")

    def back(self) -> None:
        with self._lock:
            told, self._away = self._away, False
        if told:
            self._say("the API server answers again")


class RetryBackoff:
    """How long the server has been away, for one connection; any answer makes it forget."""

    def __init__(self, what: str, voice: OutageNotifier, limit: float = PATIENT) -> None:
        self._what, self._voice, self._limit = what, voice, limit
        self._since: float | None = None
        self._pause = api.FIRST

    def wait(self, away: ServerUnavailable) -> None:
        """Sleep before the next try. Raises RunFailure when it has been too long."""
        now = time.monotonic()
        self._since = self._since or now
        waited = now - self._since
        if waited > self._limit:
            raise silent(self._what, away.why, waited)
        if waited > WORRY:
            self._voice.away(away.why)
        time.sleep(away.after or self._pause)
        self._pause = min(2 * self._pause, api.LONGEST)

    def answered(self) -> None:
        if self._since is not None:
            self._voice.back()
        self._since, self._pause = None, api.FIRST


def watched(
    listing: Callable[..., Any],
    namespace: str,
    stop: threading.Event,
    voice: OutageNotifier,
    *,
    what: str,
    patience: float = PATIENT,
    **selector: str,
) -> Iterator[tuple[str, Object]]:
    """(ADDED, MODIFIED or DELETED, object) until `stop`: what there is first, then every change. None gets lost: after
    a break the watch goes on at the last version it saw, or lists again and tells the difference. After each such list
    comes LISTED, with an empty object.

    Raises UserError for a no, RunFailure when the server stays away longer than `patience` seconds.
    """
    version: str | None = None
    known: dict[str, Object] = {}
    waiting = RetryBackoff(what, voice, patience)
    while not stop.is_set():
        try:
            if version is None:
                listed = once(listing, namespace, what=f"list {what}", **selector)
                version = (listed.get("metadata") or {}).get("resourceVersion") or "0"
                waiting.answered()
                yield from _difference(known, listed.get("items") or [])
                yield "LISTED", {}
            for kind, thing in _changes(listing, namespace, version, what, selector):
                waiting.answered()
                version = (thing.get("metadata") or {}).get("resourceVersion") or version
                if kind != "BOOKMARK":
                    _remember(known, kind, thing)
                    yield kind, thing
            waiting.answered()
            time.sleep(0.2)  # a server that ends each watch at once is not asked a thousand times a second
        except Expired:
            version = None
        except ServerUnavailable as away:
            waiting.wait(away)


def _changes(
    listing: Callable[..., Any], namespace: str, version: str, what: str, selector: dict[str, str]
) -> Iterator[tuple[str, Object]]:
    """One watch, until the server ends it. Raises Expired, ServerUnavailable, UserError."""
    answer = opened(
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
    for line in lines(answer):
        if not line.strip():
            continue
        try:
            change = json.loads(line)
            kind, thing = change["type"], change["object"]
        except (ValueError, KeyError, TypeError):
            raise ServerUnavailable("half an answer") from None
        if kind == "ERROR":
            if thing.get("code") == 410:
                raise Expired(thing.get("message", ""))
            raise ServerUnavailable(f"{thing.get('code')} {thing.get('reason')}")
        yield kind, thing


def _difference(known: dict[str, Object], listed: list[Object]) -> Iterator[tuple[str, Object]]:
    """What a new list says that is not known yet: also what has gone in the meantime."""
    here = {_key(thing): thing for thing in listed}
    for key in [key for key in known if key not in here]:
        yield "DELETED", known.pop(key)
    for key, thing in here.items():
        before = known.get(key)
        known[key] = thing
        if before != thing:
            yield ("ADDED" if before is None else "MODIFIED"), thing


def _remember(known: dict[str, Object], kind: str, thing: Object) -> None:
    if kind == "DELETED":
        known.pop(_key(thing), None)
    else:
        known[_key(thing)] = thing


def _key(thing: Object) -> str:
    return str(thing["metadata"].get("uid") or thing["metadata"].get("name"))


# --- logs -------------------------------------------------------------------------------------------------------------


class PodDeleted(Exception):  # noqa: N818 - a state of the Pod, not a fault
    """The Pod, and its log with it, is no more."""


def log_of(
    cluster: Cluster,
    pod: str,
    container: str,
    look: Callable[[], Object | None],
    *,
    stop: threading.Event,
    voice: OutageNotifier,
    tail: int | None = None,
    patience: float = PATIENT,
) -> Iterator[str]:
    """The lines of a container's log as they come, to its end, each once, over any number of broken connections.

    look: the Pod as it is now; None when it is gone. tail: begin with so many of the lines there are.
    """
    seen = LogDeduplicator()
    waiting = RetryBackoff(f"the log of {pod}", voice, patience)
    while not stop.is_set():
        thing = look()
        if thing is None:
            return
        state = _state(thing, container)
        if state == "waiting":
            if (thing.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
                return  # it never ran
            stop.wait(0.5)
            continue
        try:
            for line in _read(cluster, pod, container, follow=state == "running", seen=seen, tail=tail):
                waiting.answered()
                yield line
            waiting.answered()
            if state == "terminated":
                return
            stop.wait(0.3)  # the stream ended: the container did, or the connection; the next look tells
        except PodDeleted:
            return
        except ServerUnavailable as away:
            if away.why != "no answer in time":  # a quiet log is no reason to worry
                waiting.wait(away)


def _read(
    cluster: Cluster, pod: str, container: str, *, follow: bool, seen: "LogDeduplicator", tail: int | None
) -> Iterator[str]:
    options: dict[str, Any] = {"container": container, "follow": follow, "timestamps": True}
    if seen.last:
        options["since_seconds"] = int(time.monotonic() - seen.at) + OVERLAP
    elif tail is not None:
        options["tail_lines"] = tail
    try:
        answer = opened(
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
    for line in lines(answer):
        moment, _, text = line.decode("utf-8", "replace").partition(" ")
        if seen.new(moment):
            yield text


class LogDeduplicator:
    """Which lines of a log we have: by their time, and among those of one time by their number."""

    def __init__(self) -> None:
        self.last, self._count, self._skip = "", 0, 0
        self.at = time.monotonic()

    def again(self) -> None:
        """The log is read again, from some time before the last line on."""
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
    for one in containers(thing):
        if one["name"] == container:
            state = one.get("state") or {}
            return "running" if "running" in state else "terminated" if "terminated" in state else "waiting"
    return "waiting"

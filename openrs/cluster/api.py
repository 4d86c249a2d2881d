"""The API server: credentials, one retrying call, and its errors as messages. No token is ever printed.

Objects are plain dicts, as the server sends them; the official client (kubernetes 36) brings credentials and transport.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from openrs.errors import RunFailure, UserError
from openrs.secrets import redact

Object = dict[str, Any]

SELECTOR = "app.kubernetes.io/name=openrs"
RUN_LABEL = "app.kubernetes.io/instance"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONNECT, READ = 5.0, 30.0  # seconds: to connect, to wait for a response
STARTUP_RETRY_S = 10.0  # seconds of retries before a command that has just started gives up
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0  # seconds between two retries: doubled each time, up to the longest
DENIED_RETRY_S = 300.0  # ... of what was allowed before: a server that comes back says 403 until it has its roles
FOLLOW_RETRY_S = 900.0  # ... and while a Job is being followed: API servers are upgraded, laptops change networks
_NOUNS = {"Job": "job", "Pod": "pod", "claim": "persistent_volume_claim"}  # in the names of the client's methods


class Expired(Exception):  # noqa: N818 - a state of the server, not a fault
    """410 Gone: our resource version is too old; list again."""


class Denied(UserError):  # noqa: N818 - a state of the server, too
    """401 or 403: the server does not know us, or we may not."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connection, and the namespace that all verbs work in."""

    client: Any
    namespace: str

    @property
    def core(self) -> Any:
        return client.CoreV1Api(self.client)

    @property
    def batch(self) -> Any:
        return client.BatchV1Api(self.client)

    @property
    def custom(self) -> Any:
        return client.CustomObjectsApi(self.client)

    @property
    def storage(self) -> Any:
        return client.StorageV1Api(self.client)

    def method(self, verb: str, kind: str) -> Callable[..., Any]:
        """The client's method for a Job, a Pod or a claim, e.g. create_namespaced_job."""
        noun = _NOUNS["claim" if kind == "PersistentVolumeClaim" else kind]
        method: Callable[..., Any] = getattr(self.batch if kind == "Job" else self.core, f"{verb}_namespaced_{noun}")
        return method


def connect(context: str | None, namespace: str | None) -> Cluster:
    """By the kubeconfig (KUBECONFIG or ~/.kube/config), or inside a cluster by the Pod's service account.

    Raises UserError when there is neither, or no such context.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # we log the retries ourselves
    settings = client.Configuration()
    settings.retries = False  # `call_api` retries: it knows which calls are safe to repeat
    try:
        file = os.environ.get("KUBECONFIG")  # the client reads it only once, on import
        config.load_kube_config(config_file=file, context=context, client_configuration=settings)
        if not namespace:  # a kubeconfig without a current context has nothing to list
            contexts, active = config.list_kube_config_contexts(file)
            chosen = next((entry for entry in contexts if entry["name"] == context), active)
            namespace = chosen["context"].get("namespace")
    except Exception as error:  # noqa: BLE001 - fault boundary: the client raises any exception for a broken kubeconfig
        if context is not None or not (SERVICE_ACCOUNT / "token").is_file():
            raise _no_config(context, error) from None
        config.load_incluster_config(client_configuration=settings)
        namespace = namespace or (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    return Cluster(client.ApiClient(settings), str(namespace or "default"))


def default_namespace(context: str | None, namespace: str | None) -> str | None:
    """The namespace that `connect` would use, without contacting a server; None when no configuration names one."""
    try:
        return connect(context, namespace).namespace
    except UserError:
        return namespace


def _no_config(context: str | None, error: Exception) -> UserError:
    message = str(error)
    if context is not None and "Expected object with name" in message:
        contexts, _ = config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))
        names = ", ".join(entry["name"] for entry in contexts)
        return UserError(f"the kubeconfig has no context {context}", fix=f"use one of: {names or 'none'}")
    return UserError(
        "no cluster configured: there is no usable kubeconfig, and this does not run in a Pod",
        redact(message),
        "set KUBECONFIG, or log in with your cloud's tool; `kubectl get jobs` should then work",
    )


# --- calls ------------------------------------------------------------------------------------------------------------


def call_api(call: Callable[..., Any], *args: Any, what: str, **options: Any) -> Object:
    """Call a method of the client and return its response as a dict. Only for calls that are safe to repeat.

    what: verb and resource for messages, "list jobs". A busy or unreachable server (429, 5xx, no connection) is retried
    for STARTUP_RETRY_S seconds. Raises UserError when the server refuses (401, 403, ...), RunFailure when it stays
    unreachable, ApiException for 404 and 409, which the caller handles.
    """
    begin, pause = time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            return call_once(call, *args, what=what, **options)
        except ServerUnavailable as unavailable:
            waited = time.monotonic() - begin
            if waited + pause > STARTUP_RETRY_S:
                raise server_unreachable(what, unavailable.why, waited) from None
            time.sleep(unavailable.after or pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def list_items(call: Callable[..., Any], *args: Any, what: str, **options: Any) -> list[Object]:
    """The objects that a listing method returns. Raises as `call_api`."""
    items: list[Object] = call_api(call, *args, what=what, **options).get("items") or []
    return items


def get(cluster: Cluster, kind: str, name: str) -> Object | None:
    """The Job, Pod or claim of this name; None where there is none. Raises as `call_api`."""
    return _unless_missing(cluster, "read", kind, name, what=f"get {kind} {name}")


def delete(cluster: Cluster, kind: str, name: str, **options: Any) -> bool:
    """Delete a Job, a Pod or a claim; False where there is none. Raises as `call_api`."""
    return _unless_missing(cluster, "delete", kind, name, what=f"delete {kind} {name}", **options) is not None


def _unless_missing(cluster: Cluster, verb: str, kind: str, name: str, **options: Any) -> Object | None:
    try:
        return call_api(cluster.method(verb, kind), name, cluster.namespace, **options)
    except ApiException as error:
        if error.status != 404:
            raise
        return None


class ServerUnavailable(Exception):  # noqa: N818 - a state of the server, not a fault
    """The server is busy or unreachable: worth a retry. after: seconds from its Retry-After header."""

    def __init__(self, why: str, after: float | None = None) -> None:
        self.why, self.after = why, after
        super().__init__(why)


def call_once(call: Callable[..., Any], *args: Any, what: str, **options: Any) -> Object:
    """One attempt. Raises ServerUnavailable where a retry may help, UserError when refused, ApiException for 404 and
    409, Expired for 410."""
    response = open_response(call, *args, what=what, **options)
    try:
        body = response.data
    except urllib3.exceptions.HTTPError as error:
        raise ServerUnavailable(_short(error)) from None
    finally:
        response.release_conn()
    try:
        content: Object = json.loads(body or b"{}")
    except ValueError:
        raise ServerUnavailable("truncated response") from None
    return content


def open_response(call: Callable[..., Any], *args: Any, what: str, read: float = READ, **options: Any) -> Any:
    """One attempt; returns the open response (logs, watches). Raises as `call_once`."""
    try:
        return call(*args, _preload_content=False, _request_timeout=(CONNECT, read), **options)
    except ApiException as error:
        raise _explain(error, what) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        if isinstance(getattr(error, "reason", error), urllib3.exceptions.SSLError):  # MaxRetryError has a reason
            raise UserError(
                f"the API server's certificate is not the kubeconfig's: {_short(error)}",
                fix="log in again: the kubeconfig is outdated, or another cluster responds at this address",
            ) from None
        raise ServerUnavailable(_short(error)) from None


def lines(response: Any) -> Iterator[bytes]:
    """Whole lines of an open response as they come. Raises ServerUnavailable when the connection breaks."""
    rest = b""
    try:
        for piece in response.stream(amt=None, decode_content=False):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:  # the last line has no newline; a broken connection would have raised
            yield rest
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ServerUnavailable(_short(error)) from None
    finally:
        response.close()
        response.release_conn()


def server_unreachable(what: str, why: str, waited: float) -> RunFailure:
    return RunFailure(
        f"the API server did not respond for {waited:.0f} s ({what}: {why})",
        fix="check that `kubectl get jobs` works, then run the command again; a running Job is not affected",
    )


# --- errors as messages -----------------------------------------------------------------------------------------------


def _explain(error: Any, what: str) -> Exception:
    status = error.status or 0
    if status == 429 or status >= 500:
        after = (error.headers or {}).get("Retry-After", "")
        return ServerUnavailable(
            f"{status} {error.reason or ''}".strip(), min(float(after), 60.0) if after.isdigit() else None
        )
    match status:
        case 404 | 409:
            explained: Exception = error
        case 410:
            explained = Expired(server_message(error))
        case 401:
            explained = Denied(
                "the API server rejects the credentials (401): the token has expired, or belongs to another cluster",
                fix="log in again with your cloud's tool (aws, gcloud, az, oc); `kubectl get jobs` should then work",
            )
        case 403:
            explained = forbidden(server_message(error), what)
        case 400 | 422:
            explained = UserError(f"the API server rejected the request to {what} ({status}): {server_message(error)}")
        case _:
            explained = RunFailure(
                f"the API server returned {status} for the request to {what}: {server_message(error)}"
            )
    return explained


def forbidden(message: str, what: str) -> UserError:
    """403: a missing permission, or an admission check that rejects the object (quota, PodSecurity, a webhook)."""
    if "exceeded quota" in message:
        return UserError(
            f"the namespace's quota is too small to {what}: {message}",
            fix="wait for other Jobs to end, delete some, or have the quota raised: kubectl describe resourcequota",
        )
    if "violates PodSecurity" in message:
        return UserError(f"the namespace's PodSecurity level does not allow to {what}: {message}")
    if "cannot" not in message:
        return UserError(f"not allowed to {what}: {message}")
    role = "Role in k8s/namespace/role.yaml"
    if "at the cluster scope" in message:  # nodes and storage classes: no Role of a namespace can allow them
        role = "ClusterRole in k8s/namespace/nodes-reader.yaml"
        return Denied(f"not allowed to {what}: {message}", fix=f"have an administrator bind the {role} to you")
    return Denied(
        f"not allowed to {what}: {message}",
        fix=f"have an administrator bind the {role} to you, or use another --namespace, if there is none of this name",
    )


def server_message(error: Any) -> str:
    """The server's message for an error: Status.message, else the reason."""
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return redact(str(message or "no reason given"))[:1000]


def no_namespace(error: Any, namespace: str) -> UserError | None:
    """A 404 may mean that the namespace itself does not exist."""
    if f'namespaces "{namespace}" not found' not in server_message(error):
        return None
    return UserError(
        f"namespace {namespace} does not exist",
        fix=f"kubectl create namespace {namespace} (or kubectl apply -k k8s/namespace), or another --namespace",
    )


def _short(error: BaseException) -> str:
    """A connection error in a few words, without urllib3's objects, ports and queries."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _short(reason)
    text = redact(str(error))
    for pattern, phrase in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "host name not known here"),
        ("Temporary failure in name resolution", "host name lookup failed"),
        ("timed out", "no response in time"),
        ("Connection reset", "connection reset"),
        ("Connection aborted", "connection broken"),
        ("Connection broken", "connection broken"),
        ("No route to host", "no route to host"),
        ("Network is unreachable", "no network"),
    ):
        if pattern in text:
            return phrase
    return text.rpartition(": ")[2][:200] or type(error).__name__


def labels(thing: Mapping[str, Any]) -> Mapping[str, str]:
    by_name: Mapping[str, str] = thing["metadata"].get("labels") or {}
    return by_name

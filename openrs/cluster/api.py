"""The API server: who we are, one way to ask it anything, and what its answers mean in words. No token is ever printed.

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

from openrs.errors import RunFailure, UserError, not_installed
from openrs.run.files import redact

try:
    import urllib3
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException
except ModuleNotFoundError as missing:
    raise (not_installed(missing) or missing) from None

Object = dict[str, Any]
__all__ = [
    "ApiException",
    "Cluster",
    "Expired",
    "Object",
    "ServerUnavailable",
    "ask",
    "connect",
    "lines",
    "once",
    "opened",
]

SELECTOR = "app.kubernetes.io/name=openrs"
RUN_LABEL = "app.kubernetes.io/instance"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONNECT, READ = 5.0, 30.0  # seconds: for a connection, for an answer
STARTUP_RETRY_S = 10.0  # seconds of asking again before a command that has only begun gives up
FIRST, LONGEST = 0.5, 15.0  # seconds between two tries: the first pause, doubled each time up to the last
PATIENT = 900.0  # ... and while a Job is being followed: API servers are upgraded, laptops change networks


class Expired(Exception):  # noqa: N818 - a state of the server, not a fault
    """410 Gone: what we knew is too old; list again."""


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


def connect(context: str | None, namespace: str | None) -> Cluster:
    """By the kubeconfig (KUBECONFIG or ~/.kube/config), or inside a cluster by the Pod's service account.

    Raises UserError when there is neither, or no such context.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would tell of retries that we tell of ourselves
    settings = client.Configuration()
    settings.retries = False  # asking again is `ask`'s business: it knows what may be asked twice
    found = namespace
    try:
        file = os.environ.get("KUBECONFIG")  # the client itself looks only once, when it is imported
        config.load_kube_config(config_file=file, context=context, client_configuration=settings)
        found = found or _namespace_of(context)
    except Exception as error:  # noqa: BLE001 - fault boundary: of a broken kubeconfig the client raises anything
        if context is not None or not (SERVICE_ACCOUNT / "token").is_file():
            raise _no_config(context, error) from None
        config.load_incluster_config(client_configuration=settings)
        found = found or (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    return Cluster(client.ApiClient(settings), found or "default")


def namespace_at_hand(context: str | None, namespace: str | None) -> str | None:
    """The namespace that `connect` would take, without a server; None where no configuration says."""
    try:
        return connect(context, namespace).namespace
    except UserError:
        return namespace


def _namespace_of(context: str | None) -> str | None:
    contexts, active = config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))
    chosen = next((one for one in contexts if one["name"] == context), active) if context else active
    name = chosen["context"].get("namespace") if chosen else None
    return None if name is None else str(name)


def _no_config(context: str | None, error: Exception) -> UserError:
    said = str(error)
    if context is not None and "Expected object with name" in said:
        names = (
            ", ".join(one["name"] for one in config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))[0])
            or "none"
        )
        return UserError(f"the kubeconfig has no context {context}", fix=f"it has: {names}")
    return UserError(
        "no cluster to talk to: no usable kubeconfig, and this is no Pod of a cluster",
        redact(said),
        "set KUBECONFIG, or log in with your cloud's tool; `kubectl get jobs` should answer",
    )


# --- asking -----------------------------------------------------------------------------------------------------------


def ask(
    call: Callable[..., Any],
    *args: Any,
    what: str,
    patience: float = STARTUP_RETRY_S,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Object:
    """Call a method of the client and return the answer as a dict. For questions that may be asked twice.

    what: verb and resource for messages, "list jobs". A busy or silent server (429, 5xx, no connection) is asked again
    for `patience` seconds, which `say` is told once. Raises UserError for a no (401, 403, ...), RunFailure when it
    stays away, ApiException for 404 and 409, which mean something to the caller.
    """
    begin, pause, told = time.monotonic(), FIRST, False
    while True:
        try:
            return once(call, *args, what=what, **options)
        except ServerUnavailable as away:
            waited = time.monotonic() - begin
            if waited + pause > patience:
                raise silent(what, away.why, waited) from None
            if say is not None and not told and waited > 2:
                say(f"the API server does not answer ({away.why}); asking again. Nothing happens to the Job")
                told = True
            time.sleep(away.after or pause)
            pause = min(2 * pause, LONGEST)


class ServerUnavailable(Exception):  # noqa: N818 - a state of the server, not a fault
    """The server is busy or not there: worth another try. after: seconds that it asked us to wait."""

    def __init__(self, why: str, after: float | None = None) -> None:
        self.why, self.after = why, after
        super().__init__(why)


def once(call: Callable[..., Any], *args: Any, what: str, **options: Any) -> Object:
    """One try. Raises ServerUnavailable where another may help, UserError for a no, ApiException for 404 and 409,
    Expired for 410."""
    answer = opened(call, *args, what=what, **options)
    try:
        body = answer.data
    except urllib3.exceptions.HTTPError as error:
        raise ServerUnavailable(_short(error)) from None
    finally:
        answer.release_conn()
    try:
        found: Object = json.loads(body or b"{}")
    except ValueError:
        raise ServerUnavailable("half an answer") from None
    return found


def opened(call: Callable[..., Any], *args: Any, what: str, read: float = READ, **options: Any) -> Any:
    """One try; returns the open response (logs, watches). Raises as `once`."""
    try:
        return call(*args, _preload_content=False, _request_timeout=(CONNECT, read), **options)
    except ApiException as error:
        raise _meaning(error, what) from None
    except urllib3.exceptions.SSLError as error:
        raise UserError(
            f"the API server's certificate is not the kubeconfig's: {_short(error)}",
            fix="another cluster answers at this address, or the kubeconfig is old: log in again",
        ) from None
    except urllib3.exceptions.MaxRetryError as error:
        if isinstance(error.reason, urllib3.exceptions.SSLError):
            raise UserError(
                f"the API server's certificate is not the kubeconfig's: {_short(error.reason)}",
                fix="another cluster answers at this address, or the kubeconfig is old: log in again",
            ) from None
        raise ServerUnavailable(_short(error)) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ServerUnavailable(_short(error)) from None


def lines(answer: Any) -> Iterator[bytes]:
    """Whole lines of an open response as they come. Raises ServerUnavailable when the connection breaks."""
    rest = b""
    try:
        for piece in answer.stream(amt=None, decode_content=False):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:  # the end came after it, not a break in it
            yield rest
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ServerUnavailable(_short(error)) from None
    finally:
        answer.close()
        answer.release_conn()


def silent(what: str, why: str, waited: float) -> RunFailure:
    return RunFailure(
        f"the API server did not answer for {waited:.0f} s ({what}: {why})",
        fix="look whether `kubectl get jobs` answers; then give the command again. A Job that runs goes on without us",
    )


# --- what an answer means ---------------------------------------------------------------------------------------------


def _meaning(error: Any, what: str) -> Exception:
    status = error.status or 0
    if status == 429 or status >= 500:
        after = (error.headers or {}).get("Retry-After", "")
        return ServerUnavailable(
            f"{status} {error.reason or ''}".strip(), min(float(after), 60.0) if after.isdigit() else None
        )
    match status:
        case 404 | 409:
            found: Exception = error
        case 410:
            found = Expired(said(error))
        case 401:
            found = UserError(
                "the API server does not know us (401): the token has expired, or belongs to another cluster",
                fix="log in again with your cloud's tool (aws, gcloud, az, oc); `kubectl get jobs` should answer",
            )
        case 403:
            found = forbidden(said(error), what)
        case 400 | 422:
            found = UserError(f"the API server refuses to {what} ({status}): {said(error)}")
        case _:
            found = RunFailure(f"the API server answers {status} when asked to {what}: {said(error)}")
    return found


def forbidden(message: str, what: str) -> UserError:
    """403 is a missing right, or an admission rule that says no: quota, PodSecurity, a webhook."""
    if "exceeded quota" in message:
        return UserError(
            f"the namespace's quota is too small to {what}: {message}",
            fix="wait for other Jobs to end, delete some, or ask for more: kubectl describe resourcequota",
        )
    if "violates PodSecurity" in message:
        return UserError(f"the namespace's PodSecurity level refuses to {what}: {message}")
    if "cannot" in message:
        return UserError(
            f"not allowed to {what}: {message}",
            fix="an administrator can bind the Role of k8s/namespace/role.yaml to you; --namespace chooses another",
        )
    return UserError(f"not allowed to {what}: {message}")


def said(error: Any) -> str:
    """The server's own words about an error: Status.message, else the reason."""
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return redact(str(message or "no reason given"))[:1000]


def no_namespace(error: Any, namespace: str) -> UserError | None:
    """A 404 may mean that the namespace itself does not exist."""
    if f'namespaces "{namespace}" not found' not in said(error):
        return None
    return UserError(
        f"there is no namespace {namespace}",
        fix=f"kubectl create namespace {namespace} (or kubectl apply -k k8s/namespace), or another --namespace",
    )


def _short(error: BaseException) -> str:
    """What went wrong with a connection, without urllib3's objects, hosts' ports and queries."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _short(reason)
    text = redact(str(error))
    for known, words in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "its name is unknown here"),
        ("Temporary failure in name resolution", "its name cannot be looked up"),
        ("timed out", "no answer in time"),
        ("Connection reset", "connection reset"),
        ("Connection aborted", "connection broken"),
        ("Connection broken", "connection broken"),
        ("No route to host", "no route to it"),
        ("Network is unreachable", "no network"),
    ):
        if known in text:
            return words
    return text.rpartition(": ")[2][:200] or type(error).__name__


def labels(thing: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, str] = thing["metadata"].get("labels") or {}
    return found

"""Run a command in a Pod's container and get its bytes, over the API server's websocket (channel protocol v4, v5)."""

import json
import ssl
from collections.abc import Iterator, Sequence
from typing import Any

from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream
from websocket import ABNF, WebSocketException

from openrs.cluster.api import Cluster, ServerUnavailable, forbidden
from openrs.errors import RunFailure
from openrs.secrets import redact

STDIN, STDOUT, STDERR, ERROR = 0, 1, 2, 3
FRAME = 16_000  # bytes of stdin at once
SILENCE = 60.0  # seconds without a byte: hashing 30 GB on a slow disk has its own limit


def output(
    cluster: Cluster, pod: str, container: str, command: Sequence[str], stdin: bytes, *, silence: float = SILENCE
) -> Iterator[bytes]:
    """The command's stdout, piece by piece. `stdin` is sent to it; the protocol cannot close it.

    Raises ServerUnavailable when the connection breaks (the bytes so far are valid), RunFailure when the command fails,
    UserError when that is not allowed.
    """
    try:
        connection = stream(
            cluster.core.connect_get_namespaced_pod_exec,
            pod,
            cluster.namespace,
            container=container,
            command=list(command),
            stdout=True,
            stderr=True,
            stdin=True,
            tty=False,
            binary=True,
            _preload_content=False,
        )
    except ApiException as error:
        raise _refused(str(error.reason), pod) from None
    # The client's own loop polls the socket and can sleep while TLS holds decrypted bytes: read the socket directly.
    channel = connection.sock
    channel.settimeout(silence)
    stderr, status = b"", b""
    try:
        for begin in range(0, len(stdin), FRAME):
            channel.send(bytes([STDIN]) + stdin[begin : begin + FRAME], opcode=ABNF.OPCODE_BINARY)
        while True:
            kind, frame = channel.recv_data_frame(True)
            if kind == ABNF.OPCODE_CLOSE:
                break
            if kind not in (ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT) or len(frame.data) < 2:
                continue
            number, data = frame.data[0], bytes(frame.data[1:])
            if number == STDOUT:
                yield data
            elif number == STDERR:
                stderr = (stderr + data)[-2000:]
            elif number == ERROR:
                status += data
    except (WebSocketException, ssl.SSLError, OSError) as error:
        if not status:  # with a status the command has ended
            raise ServerUnavailable(str(error) or type(error).__name__) from None
    finally:
        connection.close()
    if not status:
        raise ServerUnavailable("the connection ended before the command did")
    _check(json.loads(status), stderr, command)


def _check(status: Any, stderr: bytes, command: Sequence[str]) -> None:
    if status.get("status") != "Success":
        message = redact(stderr.decode("utf-8", "replace").strip()) or str(status.get("message"))
        raise RunFailure(f"{command[0]} in the Pod failed: {message}")


def _refused(reason: str, pod: str) -> Exception:
    message = redact(reason)
    if "403" in message:
        return forbidden("cannot create resource pods/exec, " + message.partition("\n")[0], f"copy out of Pod {pod}")
    return ServerUnavailable(message[:200])

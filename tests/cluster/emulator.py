"""An emulated API server on kmock: it stores, lists, watches and streams, and it breaks when told to.

What it has over kmock's own emulator: resource versions that a watch goes on from (and 410 for those that are too old),
selectors, dry runs, patches of a Job's suspension, logs that grow, and exec over a websocket that really runs the
command here. What no emulator has: admission, validation, controllers, a scheduler, kubelets. Tests play those by hand.
"""

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import kmock
import yaml

KINDS = {
    "jobs": "Job",
    "pods": "Pod",
    "events": "Event",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "nodes": "Node",
    "secrets": "Secret",
    "resourcequotas": "ResourceQuota",
    "storageclasses": "StorageClass",
    "localqueues": "LocalQueue",
    "workloads": "Workload",
}
PLURALS = {kind: plural for plural, kind in KINDS.items()}
Key = tuple[str, str | None, str]
IMAGE = "registry.example.com/openrs@sha256:" + 64 * "1"


def status(code: int, reason: str, message: str) -> aiohttp.web.Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
    return aiohttp.web.json_response(body, status=code)


class Api(kmock.KubernetesEmulator):  # type: ignore[misc]
    """State is guarded by one lock: tests change it from their own thread."""

    def set_up(self) -> None:
        self.lock = threading.RLock()
        self.store: dict[Key, dict[str, Any]] = {}
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []  # version, plural, kind of change, object
        self.version = 1
        self.oldest = 0  # watches from before this version get 410
        self.faults: list[Callable[[Any], Any]] = []
        self.epoch = 0  # open streams end when it changes
        self.closing = False
        self.logs: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self.served: list[tuple[str, str, dict[str, str]]] = []
        self.namespaces = {"openrs"}
        self.exec_root: Path | None = None
        self.exec_cuts: list[int] = []  # bytes after which an exec's connection breaks
        self.headers: list[str] = []
        self.tokens: list[str] = []
        self.programs: list[str] = []  # what exec got on stdin

    # --- changes

    def change(self, what: str, plural: str, thing: dict[str, Any]) -> None:
        with self.lock:
            self.version += 1
            thing["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, plural, what, deepcopy(thing)))

    # --- requests

    async def _handle(self, request: Any) -> aiohttp.web.StreamResponse:
        raw, params = request._raw_request, dict(request.params)
        self.served.append((request.method.value, raw.path, params))
        self.headers.append(raw.headers.get("Accept", ""))
        self.tokens.append(raw.headers.get("Authorization", ""))
        with self.lock:
            fault = next((found for found in self.faults if found(request)), None)
            if fault is not None:
                answer = fault.answer(self)  # type: ignore[attr-defined]
                if answer is None:
                    raw.transport.abort()
                    raise ConnectionResetError
                return answer  # type: ignore[no-any-return]
        parts = raw.path.strip("/").split("/")
        if parts[-1] == "log":
            return await self.serve_log(raw, parts[-2], params)
        if parts[-1] == "exec":
            return await self.serve_exec(raw, parts[-2])
        plural, namespace, name = self.parse(parts)
        if plural == "namespaces":
            known = {"kind": "Namespace", "metadata": {"name": name}}
            missing = status(404, "NotFound", f'namespaces "{name}" not found')
            return aiohttp.web.json_response(known) if name in self.namespaces else missing
        if plural not in KINDS:
            return status(404, "NotFound", "the server could not find the requested resource")
        if request.method.value == "GET" and name is None and params.get("watch") in {"true", "True"}:
            return await self.serve_watch(raw, plural, namespace, params)
        return self.serve(request.method.value, plural, namespace, name, params, request.data)

    @staticmethod
    def parse(parts: list[str]) -> tuple[str, str | None, str | None]:
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        return rest[0], namespace, rest[1] if len(rest) > 1 else None

    def serve(
        self, method: str, plural: str, namespace: str | None, name: str | None, params: dict[str, str], data: Any
    ) -> aiohttp.web.Response:
        with self.lock:
            if method == "GET" and name is None:
                items = [
                    thing for key, thing in self.store.items() if self.selected(key, thing, plural, namespace, params)
                ]
                body = {
                    "kind": f"{KINDS[plural]}List",
                    "metadata": {"resourceVersion": str(self.version)},
                    "items": items,
                }
                return aiohttp.web.json_response(body)
            if method == "POST":
                return self.create(plural, namespace, params, data)
            key = (plural, namespace, str(name))
            thing = self.store.get(key)
            if thing is None:
                return status(404, "NotFound", f'{plural} "{name}" not found')
            if method == "PATCH":
                merge(thing, data)
                self.change("MODIFIED", plural, thing)
            if method == "DELETE":
                del self.store[key]
                self.change("DELETED", plural, thing)
            if plural == "secrets":
                assert "PartialObjectMetadata" in self.headers[-1], "a secret's value was asked for"
                return aiohttp.web.json_response({"kind": "PartialObjectMetadata", "metadata": thing["metadata"]})
            return aiohttp.web.json_response(thing)

    def create(self, plural: str, namespace: str | None, params: dict[str, str], data: Any) -> aiohttp.web.Response:
        if namespace not in self.namespaces:
            return status(404, "NotFound", f'namespaces "{namespace}" not found')
        assert params.get("fieldValidation") == "Strict", "every object is to be validated strictly"
        key = (plural, namespace, data["metadata"]["name"])
        if key in self.store:
            return status(409, "AlreadyExists", f'{plural} "{key[2]}" already exists')
        thing = deepcopy(data)
        if params.get("dryRun") == "All":
            return aiohttp.web.json_response(thing, status=201)
        self.put(thing, namespace)
        return aiohttp.web.json_response(thing, status=201)

    def put(self, thing: dict[str, Any], namespace: str | None = "openrs") -> dict[str, Any]:
        with self.lock:
            plural = PLURALS[thing["kind"]]
            meta = thing["metadata"]
            key = (plural, None if plural in {"nodes", "storageclasses"} else namespace, meta["name"])
            meta.setdefault("uid", f"{plural}-{meta['name']}-{self.version}")
            meta.setdefault("creationTimestamp", "2026-11-21T09:00:00Z")
            what = "MODIFIED" if key in self.store else "ADDED"
            self.store[key] = thing
            self.change(what, plural, thing)
            return thing

    @staticmethod
    def selected(key: Key, thing: dict[str, Any], plural: str, namespace: str | None, params: dict[str, str]) -> bool:
        if key[0] != plural or (namespace is not None and key[1] != namespace):
            return False
        labels = thing["metadata"].get("labels") or {}
        wanted = dict(part.split("=", 1) for part in params.get("labelSelector", "").split(",") if part)
        if any(labels.get(name) != value for name, value in wanted.items()):
            return False
        field = params.get("fieldSelector", "")
        return not field or field == f"metadata.name={key[2]}"

    async def serve_watch(
        self, raw: aiohttp.web.BaseRequest, plural: str, namespace: str | None, params: dict[str, str]
    ) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.StreamResponse()
        await response.prepare(raw)
        since, epoch = int(params.get("resourceVersion", "0")), self.epoch
        if since < self.oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        seen = since
        while self.epoch == epoch and not self.closing:
            with self.lock:
                new = [row for row in self.history if row[0] > seen and row[1] == plural]
                seen = self.version
            for _, _, what, thing in new:
                key = (plural, namespace, thing["metadata"]["name"])
                if self.selected(key, thing, plural, namespace, params):
                    await response.write(json.dumps({"type": what, "object": thing}).encode() + b"\n")
            await asyncio.sleep(0.01)
        if raw.transport is not None:
            raw.transport.abort()  # the connection breaks, in the middle of whatever it was
        raise ConnectionResetError

    async def serve_log(
        self, raw: aiohttp.web.BaseRequest, pod: str, params: dict[str, str]
    ) -> aiohttp.web.StreamResponse:
        if ("pods", "openrs", pod) not in self.store:
            return status(404, "NotFound", f'pods "{pod}" not found')
        container = params["container"]
        response = aiohttp.web.StreamResponse()
        await response.prepare(raw)
        epoch, sent = self.epoch, 0
        whole = self.logs.setdefault((pod, container), [])
        if "tailLines" in params:
            sent = max(0, len(whole) - int(params["tailLines"]))
        while self.epoch == epoch and not self.closing:
            while sent < len(whole):
                moment, text = whole[sent]
                line = f"{moment} {text}\n" if params.get("timestamps") in {"true", "True"} else f"{text}\n"
                await response.write(line.encode())
                sent += 1
            if params.get("follow") not in {"true", "True"} or self.ended(pod, container):
                return response
            await asyncio.sleep(0.01)
        if raw.transport is not None:
            raw.transport.abort()
        raise ConnectionResetError

    def ended(self, pod: str, container: str) -> bool:
        thing = self.store.get(("pods", "openrs", pod)) or {"status": {}}
        states = [*thing["status"].get("initContainerStatuses", []), *thing["status"].get("containerStatuses", [])]
        return any(one["name"] == container and "terminated" in one["state"] for one in states) or not states

    async def serve_exec(self, raw: Any, pod: str) -> aiohttp.web.StreamResponse:
        """Channel protocol v4: a byte for the channel, then data; 1 stdout, 2 stderr, 3 the end as a Status."""
        if ("pods", "openrs", pod) not in self.store:
            return status(404, "NotFound", f'pods "{pod}" not found')
        socket = aiohttp.web.WebSocketResponse(protocols=["v4.channel.k8s.io"])
        await socket.prepare(raw)
        assert len(raw.path_qs) < 1000  # proxies in front of API servers take no long addresses
        given = b""
        while len(given) < int(raw.query.getall("command")[-1]):
            frame = await socket.receive_bytes()
            assert frame[:1] == b"\x00"
            given += frame[1:]
        self.programs.append(given.decode())
        given = given.replace(b"/data/", f"{self.exec_root}/".encode())
        command = [*raw.query.getall("command")[:-1], str(len(given))]
        done = await asyncio.to_thread(subprocess.run, command, input=given, capture_output=True, check=False)
        cut = self.exec_cuts.pop(0) if self.exec_cuts else None
        out = done.stdout if cut is None else done.stdout[:cut]
        for begin in range(0, len(out), 1000):
            await socket.send_bytes(b"\x01" + out[begin : begin + 1000])
        if cut is not None:
            raw.transport.abort()
            raise ConnectionResetError
        if done.stderr:
            await socket.send_bytes(b"\x02" + done.stderr)
        if done.returncode == 0:
            end: dict[str, Any] = {"status": "Success"}
        else:
            causes = [{"reason": "ExitCode", "message": str(done.returncode)}]
            end = {"status": "Failure", "message": "command terminated", "details": {"causes": causes}}
        await socket.send_bytes(b"\x03" + json.dumps(end).encode())
        await socket.close()
        return socket


def merge(thing: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(thing.get(key), dict):
            merge(thing[key], value)
        else:
            thing[key] = value


class Fault:
    """Answers matching requests wrongly: `status`, or a broken connection for None. So many times, or until `end`."""

    def __init__(
        self, code: int | None, times: float = 1, *, method: str = "", path: str = "",
        after: bool = False, message: str = "", retry_after: str | None = None,
    ) -> None:  # fmt: skip
        self.code, self.times, self.method, self.path, self.after = code, times, method, path, after
        self.message, self.retry_after, self.hits = message, retry_after, 0
        self.request: Any = None

    def __call__(self, request: Any) -> bool:
        if self.hits >= self.times:
            return False
        if self.method and request.method.value != self.method:
            return False
        if self.path not in request._raw_request.path_qs:
            return False
        self.hits += 1
        self.request = request
        return True

    def end(self) -> None:
        self.times = 0

    def answer(self, api: Api) -> aiohttp.web.Response | None:
        if self.after:  # it works, and the answer gets lost
            plural, namespace, name = api.parse(self.request._raw_request.path.strip("/").split("/"))
            params = dict(self.request.params)
            api.serve(self.request.method.value, plural, namespace, name, params, self.request.data)
        if self.code is None:
            return None
        found = status(self.code, "Reason", self.message or f"injected {self.code}")
        if self.retry_after is not None:
            found.headers["Retry-After"] = self.retry_after
        return found


class Emulated:
    """The server with its address, a kubeconfig for it, and the hands that play controller, scheduler and kubelet."""

    def __init__(self, api: Api, url: str, folder: Path) -> None:
        self.api, self.url = api, url
        self.kubeconfig = folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "emulated",
            "clusters": [{"name": "emulated", "cluster": {"server": url}}],
            "users": [{"name": "someone", "user": {"token": "secret-token-of-the-test"}}],
            "contexts": [
                {"name": "emulated", "context": {"cluster": "emulated", "user": "someone", "namespace": "openrs"}}
            ],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))

    # --- what there is

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return self.api.store.get((PLURALS[kind], "openrs", name))

    def names(self, kind: str) -> list[str]:
        return sorted(key[2] for key in list(self.api.store) if key[0] == PLURALS[kind])

    def asked(self, method: str, path: str = "") -> list[dict[str, str]]:
        return [params for verb, at, params in list(self.api.served) if verb == method and path in at]

    # --- what breaks

    def fault(self, code: int | None, times: float = 1, **how: Any) -> Fault:
        found = Fault(code, times, **how)
        with self.api.lock:
            self.api.faults.append(found)
        return found

    def cut(self) -> None:
        """Break all open watches and logs."""
        self.api.epoch += 1

    def forget(self) -> None:
        """Versions so far are too old from now on, and open watches break."""
        with self.api.lock:
            self.api.version += 1
            self.api.oldest = self.api.version
        self.cut()

    # --- what a cluster does

    def put(self, thing: dict[str, Any], namespace: str = "openrs") -> dict[str, Any]:
        return self.api.put(thing, namespace)

    def node(self, name: str, product: str | None = "NVIDIA-A40", gpus: int = 4, **more: Any) -> None:
        allocatable = {"cpu": "32", "memory": "256Gi", "ephemeral-storage": "500Gi", "nvidia.com/gpu": str(gpus)}
        labels = {"nvidia.com/gpu.product": product} if product else {}
        spec = {"taints": more.get("taints", [])}
        allocatable |= more.get("allocatable", {})
        self.put(
            {
                "kind": "Node",
                "metadata": {"name": name, "labels": labels},
                "spec": spec,
                "status": {"allocatable": allocatable},
            }
        )

    def pod(
        self, name: str, job: str, phase: str = "Pending", states: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """states: container -> {"running": {}} and so on; a container not named waits."""
        owner = self.get("Job", job)
        assert owner is not None
        spec = deepcopy(owner["spec"]["template"]["spec"])
        if more.get("node"):
            spec["nodeName"] = more["node"]

        def named(containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [
                {"name": one["name"], "state": (states or {}).get(one["name"], {"waiting": {}})} for one in containers
            ]

        told = {"phase": phase, "conditions": more.get("conditions", [])}
        if states is not None:
            told["initContainerStatuses"] = named(spec.get("initContainers", []))
            told["containerStatuses"] = named(spec["containers"])
        meta: dict[str, Any] = {"name": name, "labels": {"batch.kubernetes.io/job-name": job}, "uid": f"uid-{name}"}
        if more.get("index") is not None:
            meta["annotations"] = {"batch.kubernetes.io/job-completion-index": str(more["index"])}
        self.put({"kind": "Pod", "metadata": meta, "spec": spec, "status": told})

    def gone(self, kind: str, name: str) -> None:
        with self.api.lock:
            thing = self.api.store.pop((PLURALS[kind], "openrs", name))
            self.api.change("DELETED", PLURALS[kind], thing)

    def job_status(
        self, name: str, condition: str | None = None, reason: str = "", message: str = "", **told: Any
    ) -> None:
        job = self.get("Job", name)
        assert job is not None
        conditions = [{"type": condition, "status": "True", "reason": reason, "message": message,
                       "lastTransitionTime": "2026-11-21T10:00:00Z"}] if condition else []  # fmt: skip
        job["status"] = {"startTime": "2026-11-21T09:00:00Z", "conditions": conditions, **told}
        self.put(job)

    def event(self, about: str, kind: str, reason: str, message: str, type_: str = "Warning") -> None:
        number = len(self.names("Event"))
        self.put({
            "kind": "Event", "metadata": {"name": f"event-{number}"},
            "type": type_, "reason": reason, "message": message,
            "involvedObject": {"kind": kind, "name": about}, "lastTimestamp": "2026-11-21T09:00:01Z",
        })  # fmt: skip

    def log(self, pod: str, container: str, *texts: str) -> None:
        whole = self.api.logs.setdefault((pod, container), [])
        for text in texts:
            number = len(whole)
            # RFC 3339 with nanoseconds, the last zeros left out, and two lines to a moment: as they come
            fraction = f"{number // 2:09d}".rstrip("0")
            whole.append((f"2026-11-21T09:00:00{'.' if fraction else ''}{fraction}Z", text))


@contextmanager
def emulated(folder: Path) -> Iterator[Emulated]:
    """Run the server in a thread of its own."""
    loop = asyncio.new_event_loop()
    ready: dict[str, Any] = {}
    started, finished = threading.Event(), asyncio.Event()

    async def serve() -> None:
        api = Api()
        api.set_up()
        async with api, kmock.Server(api) as server:
            ready["api"], ready["url"] = api, f"http://{server.host}:{server.port}"
            started.set()
            await finished.wait()
            api.closing = True
            await asyncio.sleep(0.03)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    started.wait()
    try:
        yield Emulated(ready["api"], ready["url"], folder)
    finally:
        loop.call_soon_threadsafe(finished.set)
        thread.join()
        if not loop.is_running():
            loop.close()

"""A stand-in for the hub (which cannot be had here): the few routes of its HTTP interface that an upload uses.

`faults` is what the next requests meet: "429", "500", "403", "hang" (no answer until the server stops).
"""

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class PushHub:
    """Commits that were made, as message -> names of the files in them, and the large files that were received."""

    faults: list[str] = field(default_factory=list)
    port: int = 0
    commits: dict[str, list[str]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    small: dict[str, str] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...
            def do_GET(self) -> None:
                hub.answer(self)

            do_POST = do_PUT = do_GET

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.02), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": "hf_planted0secret0", "HF_HUB_DISABLE_XET": "1"}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks(request)
        self.asked.append(f"{request.command} {request.path}")
        fault = self.faults.pop(0) if self.faults else None
        if fault == "hang":
            self.stop.wait()
            request.close_connection = True
        elif fault is not None:
            self._send(request, int(fault), {"error": f"fault {fault}"})
        else:
            found = self._route(request.path, body)
            self._send(request, 404 if found is None else 200, found)

    def _route(self, path: str, body: bytes) -> Any:
        if path.startswith("/api/repos/create"):
            self.created.append(json.loads(body))
            return {"url": f"{self.url}/me/tiny", "name": "me/tiny", "id": "1"}
        if path.startswith("/api/validate-yaml"):
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            return {
                "files": [
                    {"path": f["path"], "uploadMode": modes[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                    for f in files
                ]
            }
        if path.endswith("/info/lfs/objects/batch"):
            return {"transfer": "basic", "objects": [self._object(o) for o in json.loads(body)["objects"]]}
        if path.startswith("/put/"):
            self.objects[path.removeprefix("/put/")] = body
            return {}
        if "/commit/" in path:
            return self._commit([json.loads(line) for line in body.splitlines()])
        if re.match(r"/api/models/[^/]+/[^/]+", path):
            return {"id": "me/tiny", "sha": "0" * 40, "siblings": [], "private": True}
        return None

    def _object(self, asked: dict[str, Any]) -> dict[str, Any]:
        there = asked["oid"] in self.objects
        actions = {} if there else {"actions": {"upload": {"href": f"{self.url}/put/{asked['oid']}", "header": {}}}}
        return {"oid": asked["oid"], "size": asked["size"], "authenticated": True, **actions}

    def _commit(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        head = next(line["value"] for line in lines if line["key"] == "header")
        files = {line["value"]["path"]: line["value"] for line in lines if line["key"] != "header"}
        self.commits[head["summary"]] = sorted(files)
        self.small |= {name: value["content"] for name, value in files.items() if "content" in value}
        commit = f"{len(self.commits):040d}"
        return {"success": True, "commitOid": commit, "commitUrl": f"{self.url}/me/tiny/commit/{commit}"}

    def _chunks(self, request: BaseHTTPRequestHandler) -> bytes:
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return body

    def _send(self, request: BaseHTTPRequestHandler, code: int, value: Any) -> None:
        data = json.dumps(value).encode()
        request.send_response(code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

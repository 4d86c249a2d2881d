"""A stand-in for the hub (which cannot be had here): the few routes of its HTTP interface that a download uses.

Faults are injected per file: a list of what the next answers do ("429", "500", "cut", "flip", "hang", "403").
"""

import hashlib
import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlparse


@dataclass
class Repo:
    """Files by name, as of its commits (oldest first); `large` files are served as LFS, with their SHA-256."""

    files: dict[str, bytes]
    commits: list[str]
    large: tuple[str, ...] = ()
    gated: bool = False


@dataclass
class FakeHub:
    """Serves `repos` ("models/owner/name" or "datasets/owner/name") at `url` while it is open."""

    repos: dict[str, Repo]
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    stop: threading.Event = field(default_factory=threading.Event)
    cut_at: int = 1000

    def __enter__(self) -> Self:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...
            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.02), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def gets(self, name: str) -> list[str | None]:
        """The Range headers of all GETs of a file."""
        return [span for method, path, span in self.asked if method == "GET" and path.endswith(f"/{name}")]

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = urlparse(request.path).path
        self.asked.append(("GET" if body else "HEAD", path, request.headers.get("Range")))
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            return self._api(request, parts[1:])
        kind = "datasets" if parts[0] == "datasets" else "models"
        parts = parts[1:] if kind == "datasets" else parts
        repo = self.repos.get(f"{kind}/{parts[0]}/{parts[1]}")
        name = "/".join(parts[4:])
        if repo is None or name not in repo.files:
            return self._send(request, 404, {"X-Error-Code": "EntryNotFound" if repo else "RepoNotFound"}, b"")
        return self._file(request, repo, name, parts[3], body=body)

    def _api(self, request: BaseHTTPRequestHandler, parts: list[str]) -> None:
        key = "/".join(parts[:3])
        if self._fault(request, f"api/{key}"):
            return None
        repo = self.repos.get(key)
        if repo is None:
            return self._send(request, 404, {"X-Error-Code": "RepoNotFound"}, b"{}")
        if repo.gated and "Authorization" not in request.headers:
            return self._send(request, 403, {"X-Error-Code": "GatedRepo"}, b"{}")
        if parts[3:4] == ["commits"]:
            return self._json(request, [
                {"id": c, "title": c[:7], "message": "", "authors": [], "date": "2025-03-20T00:00:00.000Z"}
                for c in reversed(repo.commits)
            ])  # fmt: skip
        wanted = parts[4] if parts[3:4] == ["revision"] else "main"
        commit = repo.commits[-1] if wanted == "main" else wanted
        if commit not in repo.commits:
            return self._send(request, 404, {"X-Error-Code": "RevisionNotFound"}, b"{}")
        siblings = []
        for name, content in repo.files.items():
            item: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git(content)}
            if name in repo.large:
                digest = hashlib.sha256(content).hexdigest()
                item["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(item)
        return self._json(request, {"id": "/".join(parts[1:3]), "sha": commit, "siblings": siblings, "tags": []})

    def _file(self, request: BaseHTTPRequestHandler, repo: Repo, name: str, revision: str, *, body: bool) -> None:
        content = repo.files[name]
        etag = hashlib.sha256(content).hexdigest() if name in repo.large else git(content)
        commit = repo.commits[-1] if revision == "main" else revision
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not body:
            return self._send(request, 200, {**headers, "Content-Length": str(len(content))}, None)
        fault = self._fault(request, name)
        if fault is True:
            return None
        begin, status = 0, 200
        span = request.headers.get("Range")
        if span:
            begin, status = int(span.removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        piece = content[begin:]
        headers["Content-Length"] = str(len(piece))
        if fault == "flip":
            piece = bytes([piece[0] ^ 1]) + piece[1:]
        self._send(request, status, headers, piece[: self.cut_at] if fault == "cut" else piece)
        if fault == "cut":
            request.close_connection = True
        return None

    def _fault(self, request: BaseHTTPRequestHandler, name: str) -> str | bool | None:
        """Do the next fault of a file. True: the answer was given; "flip" and "cut" are left to the caller."""
        fault = self.faults[name].pop(0) if self.faults[name] else None
        if fault in {"429", "500", "503", "403", "401"}:
            self._send(request, int(fault), {"Retry-After": "0"}, b"")
            return True
        if fault == "hang":
            self.stop.wait(600)  # longer than any test may be silent
            request.close_connection = True
            return True
        return fault

    def _json(self, request: BaseHTTPRequestHandler, value: Any) -> None:
        self._send(request, 200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes | None
    ) -> None:
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        if "Content-Length" not in headers:
            request.send_header("Content-Length", str(len(content or b"")))
        request.end_headers()
        if content and request.command != "HEAD":
            request.wfile.write(content)


def git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

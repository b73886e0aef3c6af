"""A model hub on the loopback: as much of the hub's HTTP API as its own client uses to upload and to fetch."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = 10_000
"""Bytes from which a file goes to the store of large files."""


@dataclass
class Repository:
    """Whether it is private, and its files at every commit; a tag names a commit."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files."""
        if revision == "main":
            return self.commits[-1] if self.commits else None
        return next((commit for commit in self.commits if commit[0] == revision), None)


@dataclass
class Hub:
    """What the hub holds, and the requests that came."""

    token: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(token: str) -> Iterator[Hub]:
    """A hub whose private repositories ask for this token."""
    hub = Hub(token)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing: the requests are in ``hub.requests``."""

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method in (self.command, "GET" if self.command == "HEAD" else self.command):
                answer(self, *match.groups())
                return
        self._send(404, {"error": f"no route {self.command} {path}"})

    def _send(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "content-type": "application/json",
            "content-length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _knows(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {self.hub.token}"

    def _repository(self, name: str) -> Repository | None:
        """The repository, if the client may see it; otherwise the answer is sent."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._knows()):
            self._send(401 if not self._knows() else 404, {"error": "not found"}, {"x-error-code": "RepoNotFound"})
            return None
        return repository

    def create(self) -> None:
        """``POST /api/repos/create``."""
        if not self._knows():
            return self._send(401, {"error": "no token"})
        asked = json.loads(self.body)
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        if name in self.hub.repositories:
            return self._send(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
        self.hub.repositories[name] = Repository(private=asked.get("private") or asked.get("visibility") == "private")
        self.hub.repositories[name].commits.append(("0" * 40, {}))
        return self._send(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def check_card(self) -> None:
        """``POST /api/validate-yaml``."""
        text = json.loads(self.body)["content"]
        whole = text.startswith("---\n") and "model-index:" in text
        self._send(200, {"errors": [] if whole else [{"message": "no model-index"}], "warnings": []})

    def preupload(self, name: str, _: str) -> None:
        """Which files go to the store of large files."""
        if self._repository(name) is not None:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] > LARGE else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.body)["files"]
            ]
            self._send(200, {"files": files})

    def batch(self, name: str) -> None:
        """Where large files go."""
        if self._repository(name) is not None:
            objects = [
                {**file, "actions": {"upload": {"href": f"{self.hub.url}/store/{file['oid']}"}}}
                for file in json.loads(self.body)["objects"]
            ]
            self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, digest: str) -> None:
        """A large file."""
        if hashlib.sha256(self.body).hexdigest() != digest:
            return self._send(400, {"error": "another file"})
        self.hub.large[digest] = self.body
        return self._send(200, {})

    def commit(self, name: str, _: str) -> None:
        """Files of a commit."""
        repository = self._repository(name)
        if repository is None:
            return
        files = dict(repository.commits[-1][1])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        digest = hashlib.sha1(
            repr(sorted((path, hashlib.sha256(data).hexdigest()) for path, data in files.items())).encode()
        )
        repository.commits.append((digest.hexdigest(), files))
        url = f"{self.hub.url}/{name}/commit/{digest.hexdigest()}"
        self._send(200, {"success": True, "commitOid": digest.hexdigest(), "commitUrl": url})

    def info(self, name: str, revision: str | None = None) -> None:
        """The files of a revision."""
        repository = self._repository(name)
        if repository is None:
            return None
        commit = repository.at(revision or "main")
        if commit is None:
            return self._send(404, {"error": "no such revision"}, {"x-error-code": "RevisionNotFound"})
        siblings = [{"rfilename": path} for path in commit[1]]
        return self._send(200, {"id": name, "sha": commit[0], "private": repository.private, "siblings": siblings})

    def tree(self, name: str, revision: str) -> None:
        """The files of a revision, with their sizes."""
        repository = self._repository(name)
        commit = None if repository is None else repository.at(revision)
        if commit is not None:
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in commit[1].items()
            ]
            self._send(200, entries)
        elif repository is not None:
            self._send(404, {"error": "no such revision"}, {"x-error-code": "RevisionNotFound"})

    def resolve(self, name: str, revision: str, path: str) -> None:
        """A file."""
        repository = self._repository(name)
        commit = None if repository is None else repository.at(revision)
        if commit is None:
            if repository is not None:
                self._send(404, {"error": "no such revision"}, {"x-error-code": "RevisionNotFound"})
        elif path not in commit[1]:
            self._send(404, {"error": "no such file"}, {"x-error-code": "EntryNotFound"})
        else:
            data = commit[1][path]
            facts = {
                "etag": f'"{hashlib.sha256(data).hexdigest()}"',
                "x-repo-commit": commit[0],
                "accept-ranges": "bytes",
            }
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
            if asked is None:
                return self._send(200, data, facts | {"content-type": "application/octet-stream"})
            first, last = int(asked[1]), int(asked[2] or len(data) - 1)
            part = data[first : last + 1]
            facts["content-range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
            return self._send(206, part, facts | {"content-type": "application/octet-stream"})
        return None


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.check_card),
    ("POST", rf"/api/models/{NAME}/preupload/([\w.-]+)", _Handler.preupload),
    ("POST", rf"/api/models/{NAME}/commit/([\w.-]+)", _Handler.commit),
    ("GET", rf"/api/models/{NAME}/revision/([\w.-]+)", _Handler.info),
    ("GET", rf"/api/models/{NAME}/tree/([\w.-]+)", _Handler.tree),
    ("GET", rf"/api/models/{NAME}", _Handler.info),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/store/(\w+)", _Handler.store),
    ("GET", rf"/{NAME}/resolve/([\w.-]+)/(.+)", _Handler.resolve),
]

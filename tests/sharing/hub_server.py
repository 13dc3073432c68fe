"""A stand-in for the Hugging Face Hub: an HTTP server on this machine that keeps model repositories in memory.

It answers what `create_repo`, `upload_folder` and `snapshot_download` ask: creation, the kind of upload of each file,
Git LFS uploads, commits, the tree, and the files themselves. Writing needs the token ``right``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """``repos``: name -> path -> content; ``asked``: the requests in their order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sha(self, name: str) -> str:
        """The commit of a repository: its content."""
        state = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(self.repos[name].items())}
        return hashlib.sha1(json.dumps(state).encode()).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.route("GET")

    def do_HEAD(self) -> None:
        self.route("HEAD")

    def do_POST(self) -> None:
        self.route("POST")

    def do_PUT(self) -> None:
        self.route("PUT")

    def route(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{method} {path}")
        parts = path.strip("/").split("/")
        if method in ("POST",) and self.headers.get("Authorization") != "Bearer right":
            self.answer(401, {"error": "Invalid username or password."})
        elif path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n"), "the Hub reads the card's header"
            self.answer(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.server.repos.setdefault(name, {".gitattributes": b""})
            hidden = asked.get("private") or asked.get("visibility") == "private"
            self.server.private |= {name} if hidden else set()
            self.answer(200, {"url": f"{self.server.url}/{name}", "name": name})
        elif parts[0] == "lfs":
            self.server.blobs[parts[1]] = body
            self.answer(200, {})
        elif path.endswith(".git/info/lfs/objects/batch"):
            upload = [{**o, "actions": {"upload": {"href": f"{self.server.url}/lfs/{o['oid']}"}}}
                      for o in json.loads(body)["objects"]]  # fmt: skip
            self.answer(200, {"transfer": "basic", "objects": upload})
        elif parts[:2] == ["api", "models"]:
            self.model("/".join(parts[2:4]), parts[4:], body)
        elif len(parts) > 4 and parts[2] == "resolve":
            self.file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self.answer(404, {"error": f"the stand-in knows no {method} {path}"})

    def model(self, name: str, what: list[str], body: bytes) -> None:
        files = self.server.repos.get(name)
        if files is None:
            return self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if what[:1] == ["preupload"]:
            kinds = [{"path": f["path"], "shouldIgnore": False,
                      "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".onnx")) else "regular"}
                     for f in json.loads(body)["files"]]  # fmt: skip
            return self.answer(200, {"files": kinds})
        if what[:1] == ["commit"]:
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.blobs[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            sha = self.server.sha(name)
            return self.answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/{sha}", "commitOid": sha})
        if what[:1] == ["tree"]:
            return self.answer(200, [{"type": "file", "path": path, "size": len(data), "oid": oid(data)}
                                     for path, data in files.items()])  # fmt: skip
        self.answer(200, {"id": name, "modelId": name, "sha": self.server.sha(name), "private": False, "tags": [],
                          "downloads": 0, "likes": 0, "siblings": [{"rfilename": p} for p in files]})  # fmt: skip

    def file(self, name: str, path: str) -> None:
        data = self.server.repos.get(name, {}).get(path)
        if data is None:
            return self.answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        self.answer(200, data, {"ETag": f'"{oid(data)}"', "X-Repo-Commit": self.server.sha(name)})

    def answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/octet-stream" if data is content else "application/json")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

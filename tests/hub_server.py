"""A stand-in of the Hugging Face hub on this machine: the part of its API that pushing and pulling a model use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"


class Hub:
    """The server, running. Every file is taken whole in a commit, as the hub takes small ones.

    Attributes:
        repositories: name -> path -> content.
        private: name -> whether it was made private.
        commits: how many there were.
        is_lost: it ends each connection without an answer, as where the network is gone.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits = 0
        self.is_lost = False
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def sha(self) -> str:
        return f"{self.commits:040x}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._read("GET")

    def do_HEAD(self) -> None:
        self._read("HEAD")

    def _read(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.state.is_lost:
            self.close_connection = True
            return None
        if path == "/":
            return self._json({})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(tree|revision)/[^/]+", path):
            name, what = found.groups()
            if name not in self.state.repositories:
                return self._error(404, "RepoNotFound")
            files = self.state.repositories[name]
            if what == "tree":
                return self._json([_entry(path, content) for path, content in files.items()])
            return self._json({"id": name, "sha": self.state.sha, "siblings": [{"rfilename": each} for each in files]})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            name, file = found.groups()
            if name not in self.state.repositories:
                return self._error(404, "RepoNotFound")
            content = self.state.repositories[name].get(file)
            if content is None:
                return self._error(404, "EntryNotFound")
            self.send_response(200)
            self.send_header("X-Repo-Commit", self.state.sha)
            self.send_header("ETag", f'"{_oid(content)}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if method == "GET":
                self.wfile.write(content)
            return None
        return self._error(404, "RepoNotFound")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(401, "")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.state.repositories.setdefault(name, {})
            self.state.private.setdefault(name, asked.get("visibility") == "private" or bool(asked.get("private")))
            return self._json({"url": f"{self.state.url}/{name}", "name": name, "id": name})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path)
        if found is None or found[1] not in self.state.repositories:
            return self._error(404, "RepoNotFound")
        if found[2] == "preupload":
            modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self._json({"files": [{"path": each["path"], **modes} for each in json.loads(body)["files"]]})
        self._commit(self.state.repositories[found[1]], [json.loads(line) for line in body.splitlines()])
        url = f"{self.state.url}/{found[1]}/commit/{self.state.sha}"
        return self._json({"success": True, "commitUrl": url, "commitOid": self.state.sha})

    def _commit(self, files: dict[str, bytes], lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.state.commits += 1

    def _json(self, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _error(self, code: int, name: str) -> None:
        self.send_response(code)
        if name:
            self.send_header("X-Error-Code", name)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}

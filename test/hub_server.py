"""A stand-in for the Hugging Face hub, on this machine: as much of its HTTP interface as runs need to come and go.

Files lie in memory: {repository: {path: bytes}}. What is listed can be made to differ from what is there, as a hub that
means ill would do it.
"""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_test"
COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """The server.

    Attributes:
        repos: {repository: {path: bytes}}.
        listed: {path: size} that replaces what a listing would say of these paths, or adds to it.
        objects: large files on their way in, by SHA-256.
        requests: "METHOD path" of all that was asked.
        private: repositories that were made private.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.listed, self.objects, self.requests, self.private = {}, {}, {}, [], set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sizes(self, repo):
        return {path: len(data) for path, data in self.repos[repo].items()} | self.listed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.handle_all()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - as the base class looks for them

    def handle_all(self):
        self.server.requests.append(f"{self.command} {self.path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        if (
            self.command in ("POST", "PUT")
            and self.headers.get("Authorization") != f"Bearer {TOKEN}"
            and parts[0] != "lfs"
        ):
            self.answer({"error": "who are you?"}, 401, **{"X-Error-Message": "Invalid username or password."})
            return
        match parts:
            case ["api", "repos", "create"]:
                self.create(json.loads(self.body))
            case ["lfs", oid]:
                self.server.objects[oid] = self.body
                self.answer({})
            case ["datasets", user, name, "info", "lfs", "objects", "batch"]:
                self.batch(json.loads(self.body))
            case ["api", "datasets", user, name, *rest] if f"{user}/{name}" in self.server.repos:
                self.api(f"{user}/{name}", rest, parse_qs(address.query))
            case ["datasets", user, name, "resolve", _, *path] if f"{user}/{name}" in self.server.repos:
                self.resolve(self.server.repos[f"{user}/{name}"].get("/".join(path)))
            case _:
                self.answer({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})

    def create(self, asked):
        repo = "/".join(filter(None, [asked.get("organization") or "me", asked["name"]]))
        code = 409 if repo in self.server.repos else 200
        self.server.repos.setdefault(repo, {})
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(repo)
        self.answer({"url": f"{self.server.url}/datasets/{repo}", "id": repo, "error": "there"}, code)

    def batch(self, asked):
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}} for one in asked["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def api(self, repo, rest, query):
        match rest:
            case [] | ["revision", _]:
                self.answer({"id": repo, "sha": COMMIT, "private": True, "tags": [], "downloads": 0, "likes": 0})
            case ["tree", _, *path]:
                self.tree(repo, "/".join(path))
            case ["preupload", _]:
                files = [file["path"] for file in json.loads(self.body)["files"]]
                mode = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in files}
                answer = [{"path": path, "uploadMode": mode[path], "shouldIgnore": False} for path in files]
                self.answer({"files": answer})
            case ["commit", _]:
                for line in map(json.loads, self.body.splitlines()):
                    self.commit(self.server.repos[repo], **line)
                url = f"{self.server.url}/datasets/{repo}/commit/{COMMIT}"
                self.answer({"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})
            case _:
                self.answer({"error": f"no {rest}"}, 404)

    def commit(self, files, key, value):
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            data = self.server.objects[value["oid"]]
            assert hashlib.sha256(data).hexdigest() == value["oid"]
            files[value["path"]] = data

    def tree(self, repo, folder):
        found = {path: size for path, size in self.server.sizes(repo).items() if path.startswith(f"{folder}/")}
        if not found:
            self.answer({"error": "no such folder"}, 404, **{"X-Error-Code": "EntryNotFound"})
            return
        self.answer([{"type": "file", "path": path, "size": size, "oid": "0" * 40} for path, size in found.items()])

    def resolve(self, data):
        if data is None:
            self.answer({"error": "no such file"}, 404, **{"X-Error-Code": "EntryNotFound"})
        else:
            etag = hashlib.sha256(data).hexdigest()
            self.send(data, 200, "application/octet-stream", ETag=f'"{etag}"', **{"X-Repo-Commit": COMMIT})

    def answer(self, content, code=200, **headers):
        self.send(json.dumps(content).encode(), code, "application/json", **headers)

    def send(self, data, code, kind, **headers):
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def running_hub(monkeypatch):
    """Serve, and have the commands talk to it."""
    import huggingface_hub.constants

    # the transport of the real hub for large files speaks to servers of its own
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_REPO", "me/runs")
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

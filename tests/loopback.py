"""A Hub on 127.0.0.1, in memory, for tests: the routes that huggingface_hub uses, and faults on any of them.

    with Loopback() as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        hub.fault("commit", "reset")            # the next request of that route finds its connection reset
        hub.fault("get", "500", times=None)     # every one is answered with 500
        hub.lie("head", {"ETag": "../../x"})    # every answer of that route says so

Routes: create validate preupload batch put verify commit info tree paths refs tag branch head get list discussions
whoami xet. Kinds of fault:

    reset      the connection is reset before anything is done
    lost       the request is carried out, then the connection is reset: its answer never arrives
    500        a server error, nothing is done
    429        too many requests, with Retry-After: 1
    timeout    no answer comes; nothing is done
    truncated  the request is carried out and the body of the answer breaks off
    hash       the bytes of a file are altered on the way: what is sent (get) or what is received (put)
    race       another commit lands on the branch first
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KINDS = ("reset", "lost", "500", "429", "timeout", "truncated", "hash", "race")
LFS = (".safetensors", ".png", ".bin")


@dataclass(frozen=True)
class Blob:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: dict[str, Blob]
    parent: str | None = None


@dataclass
class Repo:
    name: str
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)

    def commit(self, branch: str, title: str, files: dict[str, Blob], parent: str | None) -> Commit:
        oid = hashlib.sha1(f"{self.name} {len(self.commits)} {title}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, title, files, parent)
        self.branches[branch] = oid
        return self.commits[oid]

    def at(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)


@dataclass
class Fault:
    route: str
    kind: str
    times: int | None
    match: str


class Answer(Exception):
    """What a request is answered with."""

    def __init__(self, status: int, body: Any = b"", headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {"Content-Type": "application/json", **(headers or {})}


def missing(code: str, commit: str | None = None) -> Answer:
    headers = {"X-Error-Code": code, **({"X-Repo-Commit": commit} if commit else {})}
    return Answer(404, {"error": code}, headers)


class Loopback:
    """The hub. `repos` is its state; `log` has (route, path) of every request that arrived, `ranges` (path, Range) of
    every file that was asked for."""

    token = "hf_" + "loopback" * 4
    user = "me"

    def __init__(self, page: int = 1000) -> None:
        self.repos: dict[str, Repo] = {}
        self.log: list[tuple[str, str]] = []
        self.ranges: list[tuple[str, str | None]] = []
        self.page = page
        self.rejected_card: str | None = None
        self.lock = threading.RLock()
        self.closed = threading.Event()
        self._faults: list[Fault] = []
        self._lies: list[tuple[str, dict[str, str], bytes | None, str]] = []
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fault(self, route: str, kind: str, times: int | None = 1, match: str = "") -> None:
        """Let the next `times` requests of `route` fail (None: all), of those whose path contains `match`."""
        assert kind in KINDS
        assert route in set(routes())
        self._faults.append(Fault(route, kind, times, match))

    def lie(self, route: str, headers: dict[str, str] | None = None, body: Any = None, match: str = "") -> None:
        """Let every answer of `route`, of the paths that contain `match`, have these headers, and this body."""
        assert route in set(routes())
        body = json.dumps(body).encode() if not isinstance(body, bytes | None) else body
        self._lies.append((route, headers or {}, body, match))

    def heal(self) -> None:
        """No faults and no lies from here on."""
        self._faults.clear()
        self._lies.clear()

    def distort(self, answer: Answer, route: str, path: str) -> None:
        for lied, headers, body, match in self._lies:
            if lied == route and match in path:
                answer.headers = {**answer.headers, **headers}
                answer.body = answer.body if body is None else body

    def files(self, repo: str, revision: str = "main") -> dict[str, str]:
        """Path -> sha256 of what a revision holds; empty where there is no such repo or revision."""
        commit = self.repos[repo].at(revision) if repo in self.repos else None
        return {path: blob.sha256 for path, blob in commit.files.items()} if commit else {}

    def seen(self, route: str) -> int:
        """How many requests of a route arrived."""
        return sum(name == route for name, _ in self.log)

    def add(self, repo: str, files: dict[str, bytes], *, private: bool = False, branch: str = "main") -> str:
        """Commit files from nowhere; returns the commit. The repo is made if need be."""
        made = self.repos.setdefault(repo, Repo(repo, private))
        before = made.at(branch)
        blobs = {path: Blob(data, path.endswith(LFS)) for path, data in files.items()}
        kept = dict(before.files) if before else {}
        return made.commit(branch, "from elsewhere", kept | blobs, before.oid if before else None).oid

    def take_fault(self, route: str, path: str) -> str | None:
        for fault in self._faults:
            if fault.route == route and fault.match in path and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault.kind
        return None


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], hub: Loopback) -> None:
        super().__init__(address, _Handler)
        self.hub = hub
        self.aborted: set[int] = set()

    def shutdown_request(self, request: Any) -> None:
        # Without the goodbye that shutdown() sends, so that the client sees a reset.
        if id(request) in self.aborted:
            self.aborted.discard(id(request))
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what half of these tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    # One packet an answer: headers and body apart would wait 40 ms for each other.
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        hub = self.server.hub
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        route, parts = _find(self.command, url.path)
        hub.log.append((route, url.path))
        kind = hub.take_fault(route, unquote(url.path))
        if kind == "timeout":
            hub.closed.wait(20)
        if kind in ("timeout", "reset"):
            return self._abort()
        if kind == "500":
            return self._send(Answer(500, {"error": "injected"}))
        if kind == "429":
            return self._send(Answer(429, {"error": "injected"}, {"Retry-After": "1"}))
        if kind == "hash" and route == "put":
            body = _altered(body)
        try:
            with hub.lock:
                if kind == "race":
                    hub.add(parts["repo"], {"elsewhere.txt": b"a commit that came first"})
                getattr(self, f"_{route}")(body, **parts)
            raise AssertionError(f"{route} gave no answer")
        except Answer as answer:
            if kind == "hash" and route == "get":
                answer.body = _altered(answer.body)
            if kind == "lost":
                return self._abort()
            hub.distort(answer, route, unquote(url.path))
            return self._send(answer, cut=kind == "truncated")

    def _send(self, answer: Answer, cut: bool = False) -> None:
        self.send_response(answer.status)
        size = answer.headers.pop("Content-Length", None) or str(len(answer.body))
        for name, value in {**answer.headers, "Content-Length": size}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            if cut:
                self._abort()
            return
        self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def _abort(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.server.aborted.add(id(self.connection))

    # ---- who asks, and for what --------------------------------------------------------------------------------

    def _may_write(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.server.hub.token}":
            raise Answer(401, {"error": "no token"}, {"X-Error-Message": "Invalid credentials in Authorization header"})

    def _repo(self, name: str) -> Repo:
        found = self.server.hub.repos.get(name)
        hidden = (
            found is not None and found.private and not self.headers.get("Authorization", "").endswith(Loopback.token)
        )
        if found is None or hidden:
            raise missing("RepoNotFound")
        return found

    def _at(self, repo: str, revision: str) -> tuple[Repo, Commit]:
        found = self._repo(repo)
        commit = found.at(revision)
        if commit is None:
            raise missing("RevisionNotFound")
        return found, commit

    # ---- reading -----------------------------------------------------------------------------------------------

    def _none(self, body: bytes, **_: str) -> None:
        raise Answer(404, {"error": "no such route"})

    _xet = _none

    def _whoami(self, body: bytes) -> None:
        self._may_write()
        raise Answer(200, {"type": "user", "name": self.server.hub.user, "orgs": [], "auth": {}})

    def _info(self, body: bytes, repo: str, revision: str = "main") -> None:
        found, commit = self._at(repo, revision)
        answer = _described(found, commit)
        if self.query.get("blobs"):
            answer["siblings"] = [_sibling(path, blob) for path, blob in commit.files.items()]
        raise Answer(200, answer)

    def _list(self, body: bytes) -> None:
        prefix, word = self.query.get("author", "") + "/", self.query.get("search", "")
        repos = [repo for repo in self.server.hub.repos.values() if repo.name.startswith(prefix) and word in repo.name]
        raise Answer(200, [_described(repo, repo.at("main")) for repo in repos if not repo.private])

    def _tree(self, body: bytes, repo: str, revision: str) -> None:
        _, commit = self._at(repo, revision)
        start, page = int(self.query.get("cursor", 0)), self.server.hub.page
        entries = [_entry(path, blob) for path, blob in sorted(commit.files.items())]
        more = f"{self.server.hub.url}{urlsplit(self.path).path}?recursive=True&cursor={start + page}"
        headers = {"Link": f'<{more}>; rel="next"'} if start + page < len(entries) else {}
        raise Answer(200, entries[start : start + page], headers)

    def _paths(self, body: bytes, repo: str, revision: str) -> None:
        _, commit = self._at(repo, revision)
        asked = parse_qs(body.decode()).get("paths", [])
        raise Answer(200, [_entry(path, commit.files[path]) for path in asked if path in commit.files])

    def _refs(self, body: bytes, repo: str) -> None:
        found = self._repo(repo)
        heads = {name: oid for name, oid in found.branches.items() if not name.startswith("refs/pr/")}
        pulls = {name: oid for name, oid in found.branches.items() if name.startswith("refs/pr/")}
        raise Answer(
            200,
            {
                "branches": _refs_of(heads, "refs/heads/"),
                "tags": _refs_of(found.tags, "refs/tags/"),
                "converts": [],
                "pullRequests": _refs_of(pulls, ""),
            },
        )

    def _get(self, body: bytes, repo: str, revision: str, path: str) -> None:
        _, commit = self._at(repo, revision)
        blob = commit.files.get(path)
        if blob is None:
            raise missing("EntryNotFound", commit.oid)
        headers = {
            "X-Repo-Commit": commit.oid,
            "ETag": f'"{blob.etag}"',
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
        }
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
        if self.command == "GET":
            self.server.hub.ranges.append((path, self.headers.get("Range")))
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            raise Answer(200, blob.data, headers)
        first, last = int(asked[1]), int(asked[2] or len(blob.data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(blob.data)}"
        raise Answer(206, blob.data[first : last + 1], headers)

    _head = _get

    # ---- writing -----------------------------------------------------------------------------------------------

    def _create(self, body: bytes) -> None:
        self._may_write()
        asked, hub = json.loads(body), self.server.hub
        name = f"{asked.get('organization') or hub.user}/{asked['name']}"
        answer = {"url": f"{hub.url}/{name}", "name": name}
        if name in hub.repos:
            raise Answer(409, {**answer, "error": "You already created this model repo"})
        # huggingface_hub 2.x says visibility, 1.x says private.
        private = asked.get("visibility") == "private" or asked.get("private") is True
        hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        raise Answer(200, answer)

    def _validate(self, body: bytes) -> None:
        rejected = self.server.hub.rejected_card
        if rejected is not None and rejected in json.loads(body)["content"]:
            raise Answer(400, {"errors": [{"message": f"{rejected!r} is not allowed"}], "warnings": []})
        raise Answer(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, repo: str, revision: str) -> None:
        self._may_write()
        _, commit = self._at(repo, revision)
        answers = []
        for file in json.loads(body)["files"]:
            lfs, there = file["path"].endswith(LFS), commit.files.get(file["path"])
            mode = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            answers.append(mode | ({"oid": there.etag} if there else {}))
        raise Answer(200, {"files": answers})

    def _batch(self, body: bytes, repo: str) -> None:
        self._may_write()
        found, answers = self._repo(repo), []
        for entry in json.loads(body)["objects"]:
            if entry["oid"] not in found.objects:
                href = f"{self.server.hub.url}/lfs/{repo}/{entry['oid']}"
                entry["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            answers.append(entry)
        raise Answer(200, {"transfer": "basic", "objects": answers})

    def _put(self, body: bytes, repo: str, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Answer(400, {"error": "the content does not have that hash"})
        self._repo_even_private(repo).objects[oid] = body
        raise Answer(200, {"stored": oid})

    def _verify(self, body: bytes, repo: str, oid: str) -> None:
        there = self._repo_even_private(repo).objects.get(oid)
        raise Answer(200 if there is not None and len(there) == json.loads(body)["size"] else 404, {})

    def _repo_even_private(self, repo: str) -> Repo:
        # An upload address is signed; its request carries no token.
        return self.server.hub.repos[repo]

    def _commit(self, body: bytes, repo: str, revision: str) -> None:
        self._may_write()
        found, before = self._at(repo, revision)
        lines = [json.loads(line) for line in body.splitlines() if line]
        head = next(line["value"] for line in lines if line["key"] == "header")
        pull = self.query.get("create_pr") == "1"
        if not pull and head.get("parentCommit") not in (None, before.oid):
            raise Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = _changed(found, dict(before.files), lines)
        number = len(found.pulls) + 1
        commit = found.commit(f"refs/pr/{number}" if pull else revision, head["summary"], files, before.oid)
        answer = {"commitUrl": f"{self.server.hub.url}/{repo}/commit/{commit.oid}", "commitOid": commit.oid}
        if pull:
            found.pulls.append({"num": number, "title": head["summary"], "status": "open"})
            answer["pullRequestUrl"] = f"{self.server.hub.url}/{repo}/discussions/{number}"
        raise Answer(200, answer)

    def _tag(self, body: bytes, repo: str, revision: str) -> None:
        self._may_write()
        found, commit = self._at(repo, revision)
        name = json.loads(body)["tag"]
        if name in found.tags:
            raise Answer(409, {"error": f"tag {name} already exists"})
        found.tags[name] = commit.oid
        raise Answer(200, {})

    def _branch(self, body: bytes, repo: str, name: str) -> None:
        self._may_write()
        start = json.loads(body or b"{}").get("startingPoint", "main")
        found, commit = self._at(repo, start)
        if name in found.branches:
            raise Answer(409, {"error": f"branch {name} already exists"})
        found.branches[name] = commit.oid
        raise Answer(200, {})

    def _discussions(self, body: bytes, repo: str) -> None:
        found = self._repo(repo)
        listed = [
            {
                **pull,
                "author": {"name": self.server.hub.user},
                "createdAt": "2026-01-02T03:04:05.000Z",
                "repo": {"name": repo, "type": "model"},
                "isPullRequest": True,
            }
            for pull in found.pulls
        ]
        raise Answer(200, {"discussions": listed, "count": len(listed), "start": 0})


def _altered(data: bytes) -> bytes:
    """Other bytes of the same length."""
    return bytes([data[0] ^ 0xFF]) + data[1:-1] + bytes([data[-1] ^ 0xFF]) if data else data


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    lfs = {"lfs": {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 130}} if blob.lfs else {}
    return {"type": "file", "path": path, "size": len(blob.data), "oid": blob.git, **lfs}


def _sibling(path: str, blob: Blob) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": 130}} if blob.lfs else {}
    return {"rfilename": path, "size": len(blob.data), "blobId": blob.git, **lfs}


def _described(repo: Repo, commit: Commit | None) -> dict[str, Any]:
    return {
        "id": repo.name,
        "modelId": repo.name,
        "sha": commit.oid if commit else None,
        "private": repo.private,
        "tags": [],
        "siblings": [{"rfilename": path} for path in (commit.files if commit else {})],
    }


def _refs_of(refs: dict[str, str], prefix: str) -> list[dict[str, str]]:
    return [{"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in refs.items()]


def _changed(repo: Repo, files: dict[str, Blob], lines: list[dict[str, Any]]) -> dict[str, Blob]:
    for line in lines:
        key, value = line["key"], line["value"]
        if key == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in repo.objects:
                raise Answer(400, {"error": f"no object {value['oid']}"})
            files[value["path"]] = Blob(repo.objects[value["oid"]], lfs=True)
        elif key == "deletedFile":
            files.pop(value["path"], None)
    return files


_ID = r"(?P<repo>[^/]+/[^/]+)"
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"/api/models/{_ID}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", rf"/lfs/{_ID}/(?P<oid>[0-9a-f]+)", "put"),
    ("POST", rf"/lfs/{_ID}/(?P<oid>[0-9a-f]+)/verify", "verify"),
    ("POST", rf"/api/models/{_ID}/commit/(?P<revision>[^/]+)", "commit"),
    ("GET", rf"/api/models/{_ID}/tree/(?P<revision>[^/]+)", "tree"),
    ("POST", rf"/api/models/{_ID}/paths-info/(?P<revision>[^/]+)", "paths"),
    ("GET", rf"/api/models/{_ID}/refs", "refs"),
    ("POST", rf"/api/models/{_ID}/tag/(?P<revision>[^/]+)", "tag"),
    ("POST", rf"/api/models/{_ID}/branch/(?P<name>[^/]+)", "branch"),
    ("GET", rf"/api/models/{_ID}/discussions", "discussions"),
    ("GET", rf"/api/models/{_ID}/xet-(write|read)-token/.*", "xet"),
    ("GET", rf"/api/models/{_ID}/revision/(?P<revision>[^/]+)", "info"),
    ("GET", rf"/api/models/{_ID}", "info"),
    ("GET", r"/api/models", "list"),
    ("HEAD", rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "head"),
    ("GET", rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "get"),
)


def routes() -> Iterator[str]:
    """Every route once."""
    yield from dict.fromkeys(route for *_, route in _PATTERNS)


def _find(method: str, path: str) -> tuple[str, dict[str, str]]:
    for verb, pattern, route in _PATTERNS:
        if verb == method and (match := re.fullmatch(pattern, path)):
            return route, {name: unquote(value) for name, value in match.groupdict().items()}
    return "none", {}

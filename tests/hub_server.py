"""A Hub on 127.0.0.1: dataset repositories by commit, gates, files that go or break.

It answers the calls of `huggingface_hub` that `data get` makes, over HTTP: facts of a repository,
its tree, facts of paths, and files by commit with ranges. `redirect` points the client at it. Below
/files/ it serves `files` as they are.
"""

import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repository:
    """commits: 40 digits -> name -> content, the newest last. token: of who may read it."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    token: str = ""
    breaks: dict[str, int] = field(default_factory=dict)  # file -> answers that end after a third
    gone: set[str] = field(default_factory=set)  # listed, and 404

    @property
    def newest(self) -> str:
        return list(self.commits)[-1]

    def push(self, files: dict[str, bytes]) -> str:
        """A new commit; its hash follows from the content, as git's does."""
        words = repr(sorted(files.items())) + repr(list(self.commits))
        commit = hashlib.sha1(words.encode()).hexdigest()
        self.commits[commit] = files
        return commit


class Hub(http.server.ThreadingHTTPServer):
    """`repositories`: by org/name. asked: (method, path, Range, Authorization) of every request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, Repository] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    def __enter__(self) -> "Hub":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()

    def repository(self, name: str, files: dict[str, bytes], token: str = "") -> Repository:
        found = self.repositories[name] = Repository(token=token)
        found.push(files)
        return found

    def redirect(self, monkeypatch) -> None:
        """Points this process's client here, as HF_ENDPOINT does before it is imported."""
        from huggingface_hub import constants, hf_api

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            self.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        who = self.headers.get("Authorization")
        self.server.asked.append((self.command, self.path, self.headers.get("Range"), who))
        if parts[0] == "files":
            plain = Repository({"": self.server.files})
            return self._file(plain, "", "/".join(parts[1:]))
        api = parts[:2] == ["api", "datasets"]
        parts = parts[2:] if api else parts[1:]
        repository = self.server.repositories.get("/".join(parts[:2]))
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        what, revision = [*parts, "revision", "main"][2:4] if api else (parts[2], parts[3])
        commit = repository.newest if revision == "main" else revision
        if commit not in repository.commits:
            return self._refuse(404, "RevisionNotFound")
        files = repository.commits[commit]
        if what == "resolve":
            if repository.token and who != f"Bearer {repository.token}":
                return self._refuse(403 if who else 401, "GatedRepo")
            return self._file(repository, commit, "/".join(parts[4:]))
        if what == "tree":
            return self._json([_facts(name, files[name]) for name in files])
        if what == "paths-info":
            form = not body.startswith(b"{")
            wanted = parse_qs(body.decode())["paths"] if form else json.loads(body)["paths"]
            return self._json([_facts(name, files[name]) for name in files if name in wanted])
        return self._json({"id": "/".join(parts[:2]), "sha": commit, "siblings": []})

    def _file(self, repository: Repository, commit: str, name: str) -> None:
        content = repository.commits[commit].get(name)
        if content is None or name in repository.gone:
            return self._refuse(404, "EntryNotFound")
        start, end, code = 0, len(content), 200
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end, code = int(first), int(last) + 1 if last else len(content), 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        body = content[start:end]
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if repository.breaks.get(name, 0):
            repository.breaks[name] -= 1
            body, self.close_connection = body[: len(body) // 3], True
        self.wfile.write(body)

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, code: int, why: str) -> None:
        body = b"{}"
        self.send_response(code)
        self.send_header("X-Error-Code", why)
        self.send_header("X-Error-Message", why)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _facts(name: str, content: bytes) -> dict:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}

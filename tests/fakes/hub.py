"""A double of the Hugging Face Hub's HTTP API, for the real `huggingface_hub` client (HF_ENDPOINT, HF_HUB_DISABLE_XET=1).

In process, state in memory. Small files are served by the endpoint itself (127.0.0.1), LFS content by another host
(localhost) behind a signed URL, where, as on S3, a request that brings an Authorization header too is refused.
Routes as in https://huggingface.co/docs/hub/api; how errors are told: huggingface_hub/utils/_http.py, hf_raise_for_status.
"""

import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import constants

from fakes import hub_routes
from fakes.hub_repository import BORN_WITH, Commit, Repository
from fakes.hub_routes import Answer, Question

Kind = Literal["models", "datasets"]
PAGE = 5  # entries of a listing; the Hub has 1,000


@dataclass(frozen=True)
class Account:
    name: str
    role: Literal["write", "read"]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """With its query."""
    host: str
    token: str | None
    user_agent: str
    status: int
    size_bytes: int
    """Of its body."""


@dataclass
class Fault:
    """What befalls requests whose method and path match: after `skip` of them, `times` of them."""

    method: str
    path: str
    skip: int
    times: int
    kind: Literal["status", "drop", "drop the reply", "cut", "flip", "hang"]
    """status: answered so, with nothing done; drop: closed, with nothing done; drop the reply: done, then closed;
    cut: half of the body; flip: a bit of the body turned; hang: no answer until the test ends."""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "Internal Error - We're working hard to fix this as soon as possible!"
    body: bytes | None = None
    """Of the answer; None: the Hub's own way to tell the message."""

    def strikes(self, question: Question) -> bool:
        if self.times == 0 or question.method != self.method or not re.search(self.path, question.path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Hub:
    """Accounts: `me` with a token that may write and one that may only read; `stranger` with one that may write."""

    def __init__(self) -> None:
        self.user = "me"
        self.write_token, self.read_token = "hf_" + "w" * 34, "hf_" + "r" * 34
        self.stranger_token, self.invalid_token = "hf_" + "s" * 34, "hf_" + "x" * 34
        self.accounts = {
            self.write_token: Account(self.user, "write"),
            self.read_token: Account(self.user, "read"),
            self.stranger_token: Account("stranger", "write"),
        }
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.over = threading.Event()
        self.page = PAGE
        self.lock = threading.RLock()
        self._server = Server(self)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage(self) -> str:
        return f"http://localhost:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of a child process that may write."""
        return {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": self.write_token, "HF_HUB_DISABLE_XET": "1"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        """Requests and faults, between two tests."""
        self.requests.clear()
        self.faults.clear()
        self.over.set()  # lets go of who hangs
        self.over = threading.Event()

    def new_repo(
        self, kind: Kind, name: str, files: Mapping[str, bytes] | None = None, *, private: bool = False, gated: bool = False
    ) -> Repository:
        """A repository with exactly these files; by default with what the Hub makes it with."""
        with self.lock:
            repository = Repository(kind, name, private, gated)
            repository.commit(BORN_WITH if files is None else files, title="initial commit")
            self.repositories[kind, name] = repository
            return repository

    def repository(self, kind: Kind, name: str) -> Repository:
        return self.repositories[kind, name]

    def files(self, kind: Kind, name: str, revision: str = "main") -> dict[str, bytes]:
        commit = self.repository(kind, name).find(revision)
        assert commit is not None, f"{name} has no revision {revision}"
        return {path: file.data for path, file in commit.files.items()}

    def commits(self, kind: Kind, name: str, branch: str = "main") -> list[Commit]:
        """Newest first."""
        return list(self.repository(kind, name).history(branch))

    def fail(
        self,
        method: str,
        path: str,
        *,
        status: int = 0,
        kind: Literal["drop", "drop the reply", "cut", "flip", "hang"] = "drop",
        times: int = 1,
        skip: int = 0,
        headers: Mapping[str, str] | None = None,
        message: str = Fault.message,
        body: bytes | None = None,
    ) -> None:
        """The next requests whose path matches the pattern answer with a status, or suffer what `kind` says."""
        self.faults.append(Fault(method, path, skip, times, "status" if status else kind, status, headers or {}, message, body))

    def sent(self, pattern: str) -> list[Request]:
        """Requests so far whose "METHOD path" matches."""
        return [request for request in self.requests if re.search(pattern, f"{request.method} {request.path}")]

    def answer(self, question: Question) -> Answer:
        if question.host.startswith("localhost"):
            return hub_routes.storage(self, question)
        return hub_routes.api(self, question)


class Desk:
    """The Hub as a test at its desk uses it: this process's client asks the double, logged in as `token`."""

    def __init__(self, hub: Hub, *, patch: pytest.MonkeyPatch, home: Path) -> None:
        hub.forget()
        self.hub = hub
        self._patch = patch
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        for name in ("HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        # The client reads these once, when it is imported.
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        self.log_in(hub.write_token)

    def log_in(self, token: str | None) -> None:
        if token is None:
            self._patch.delenv("HF_TOKEN", raising=False)
        else:
            self._patch.setenv("HF_TOKEN", token)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def handle_one_method(self) -> None:
        hub, question = self.server.hub, self.question()
        with hub.lock:
            fault = next((fault for fault in hub.faults if fault.strikes(question)), None)
            answer = self.answered(hub, question, fault=fault)
            hub.requests.append(self.noted(question, status=answer.status if answer else 0))
        if fault is not None and fault.kind == "hang":
            hub.over.wait()
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.send(answer, cut=fault is not None and fault.kind == "cut")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one_method

    def answered(self, hub: Hub, question: Question, *, fault: Fault | None) -> Answer | None:
        """None: no reply."""
        if fault is None:
            return hub.answer(question)
        if fault.body is not None:
            return Answer(fault.status, fault.body, fault.headers)
        if fault.kind == "status":
            return hub_routes.refusal(fault.status, fault.message, headers=fault.headers)
        if fault.kind in {"drop", "hang"}:
            return None
        answer = hub.answer(question)
        if fault.kind == "flip":
            return Answer(answer.status, answer.body[:-1] + bytes([answer.body[-1] ^ 1]), answer.headers)
        return None if fault.kind == "drop the reply" else answer

    def question(self) -> Question:
        address = urlsplit(self.path)
        authorization = self.headers.get("Authorization", "")
        return Question(
            method=self.command,
            path=self.path,
            parts=tuple(unquote(part) for part in address.path.strip("/").split("/")),
            query={key: values[0] for key, values in parse_qs(address.query).items()},
            host=self.headers["Host"],
            token=authorization.removeprefix("Bearer ") or None,
            range=self.headers.get("Range"),
            body=self.body(),
        )

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = list[bytes]()
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def noted(self, question: Question, *, status: int) -> Request:
        agent = self.headers.get("User-Agent", "")
        return Request(question.method, question.path, question.host, question.token, agent, status, len(question.body))

    def send(self, answer: Answer, *, cut: bool) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        if cut:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: Any) -> None:
        """Not on stderr: `Hub.requests` has them."""

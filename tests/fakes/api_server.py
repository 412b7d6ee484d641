"""A mock of the Kubernetes API server over HTTP: it keeps objects, and fails as it is told to.

`server.state` are the objects by path; `server.faults` are answers to give instead, each once: ("POST", "/jobs", 503) matches by
verb and a part of the path. A status of 0 drops the connection.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Manifest = dict[str, Any]

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: mock
clusters: [{{name: mock, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: somebody, user: {{token: planted-kubeconfig-token}}}}]
contexts: [{{name: mock, context: {{cluster: mock, user: somebody, namespace: ml}}}}]
"""


@dataclass
class Fault:
    verb: str
    path: str
    status: int
    message: str = "told to fail"
    times: int = 1
    after: bool = False
    """The deed is done, and only its answer is lost."""


@dataclass
class LogPart:
    """What a pod's log says in one connection: stamped lines, and whether the connection is cut then."""

    lines: list[str]
    cut: bool = False
    then: Callable[[], None] | None = None
    """What happens in the cluster when it has been read."""


@dataclass
class ApiServer:
    folder: Path
    state: dict[str, Manifest] = field(default_factory=dict[str, Manifest])
    faults: list[Fault] = field(default_factory=list[Fault])
    logs: dict[str, list[LogPart]] = field(default_factory=dict[str, list[LogPart]])
    unknown_kinds: set[str] = field(default_factory=set[str])
    """As "jobsets": kinds that this cluster does not have."""
    requests: list[tuple[str, str, dict[str, list[str]]]] = field(default_factory=list[tuple[str, str, dict[str, list[str]]]])
    on_request: Callable[[str, str], None] | None = None
    page_size: int = 500
    _http: ThreadingHTTPServer = field(init=False)
    _uids: int = 0

    def start(self) -> None:
        mock = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                mock.answer(self)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.kubeconfig.write_text(KUBECONFIG.format(port=self._http.server_port))

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    # ---- what the cluster holds -------------------------------------------------------------------------------------------

    def put(self, path: str, thing: Manifest) -> Manifest:
        self._uids += 1
        metadata = {
            "uid": f"uid-{self._uids}",
            "creationTimestamp": f"2026-01-01T00:00:{self._uids:02d}Z",
            **thing.get("metadata", {}),
        }
        self.state[path] = {**thing, "metadata": metadata}
        return self.state[path]

    def deeds(self, verb: str) -> list[str]:
        return [path for done, path, _ in self.requests if done == verb]

    # ---- HTTP -------------------------------------------------------------------------------------------------------------

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        query, verb, path = parse_qs(parts.query), handler.command, parts.path
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.requests.append((verb, path, query))
        if self.on_request:
            self.on_request(verb, path)
        fault = self._fault(verb, path)
        if fault and fault.after:
            self._deed(verb, path, query=query, body=body)
        if fault:
            return self._fail(handler, fault)
        if path.endswith("/log"):
            return self._log(handler, path)
        status, answer = self._deed(verb, path, query=query, body=body)
        self._send(handler, status, answer)
        return None

    def _fault(self, verb: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.verb == verb and fault.path in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _fail(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        if fault.status == 0:
            handler.close_connection = True
            handler.connection.shutdown(2)
            return
        self._send(handler, fault.status, {"kind": "Status", "code": fault.status, "message": fault.message})

    def _send(self, handler: BaseHTTPRequestHandler, status: int, answer: Manifest) -> None:
        data = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _deed(self, verb: str, path: str, *, query: dict[str, list[str]], body: bytes) -> tuple[int, Manifest]:
        if any(f"/{kind}" in path for kind in self.unknown_kinds):
            return 404, {"kind": "Status", "message": "the server could not find the requested resource"}
        match verb:
            case "POST":
                return self._create(path, json.loads(body))
            case "PATCH":
                return self._merge(path, json.loads(body))
            case "DELETE":
                found = self.state.pop(path, None)
                return (200, found) if found else self._absent(path)
            case _:
                if path in self.state:
                    return 200, self.state[path]
                kind = path.rpartition("/")[2]
                return self._list(path, query) if kind.endswith("s") and self._is_kind(path) else self._absent(path)

    def _is_kind(self, path: str) -> bool:
        return path.rpartition("/")[2] in {"pods", "jobs", "jobsets", "events", "configmaps", "workloads"}

    def _create(self, path: str, thing: Manifest) -> tuple[int, Manifest]:
        where = f"{path}/{thing['metadata']['name']}"
        if where in self.state:
            return 409, {"kind": "Status", "message": f'"{thing["metadata"]["name"]}" already exists'}
        return 201, self.put(where, thing)

    def _merge(self, path: str, change: Manifest) -> tuple[int, Manifest]:
        if path not in self.state:
            return self._absent(path)
        self.state[path]["metadata"] |= change["metadata"]
        return 200, self.state[path]

    def _absent(self, path: str) -> tuple[int, Manifest]:
        return 404, {"kind": "Status", "message": f'"{path.rpartition("/")[2]}" not found'}

    def _list(self, path: str, query: dict[str, list[str]]) -> tuple[int, Manifest]:
        root, _, kind = path.rpartition("/")
        found = [
            thing
            for where, thing in self.state.items()
            if (where.startswith(f"{path}/") or ("/namespaces/" not in path and where.startswith(root) and f"/{kind}/" in where))
            and matches(thing, query)
        ]
        first = int((query.get("continue") or ["0"])[0])
        page = found[first : first + self.page_size]
        more = {"continue": str(first + self.page_size)} if first + self.page_size < len(found) else {}
        return 200, {"kind": "List", "metadata": more, "items": page}

    def _log(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        """The next part of the pod's log; nothing more where all has been read."""
        name = path.split("/")[-2]
        parts = self.logs.get(name, [])
        part = parts.pop(0) if parts else LogPart([])
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in part.lines:
            data = f"{line}\n".encode()
            handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        handler.wfile.flush()
        if part.then:
            part.then()
        if part.cut:
            time.sleep(0.05)  # the client must have read what was sent
            handler.close_connection = True
            handler.connection.shutdown(2)
        else:
            handler.wfile.write(b"0\r\n\r\n")


def matches(thing: Manifest, query: dict[str, list[str]]) -> bool:
    for text in query.get("labelSelector", []):
        key, _, value = text.partition("=")
        if thing["metadata"].get("labels", {}).get(key) != value:
            return False
    about = thing.get("involvedObject", {}).get("name")
    return all(about == text.partition("=")[2] for text in query.get("fieldSelector", []))

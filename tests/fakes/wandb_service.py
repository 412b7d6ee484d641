"""As much of the Weights & Biases service as the real client needs to make a run, go on with it, and send rows and pictures.

The client keeps a run's history as numbered lines and says with each request where its own begin, so that a client that
believes to be the first writes over what is there, as it does with the real service.
"""

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

KEY = "0123456789" * 4
KEY_HEADER = base64.b64encode(f"api:{KEY}".encode()).decode()
HISTORY = "wandb-history.jsonl"


@dataclass
class ServedRun:
    config: dict[str, Any] = field(default_factory=dict)
    host: str | None = None
    lines: dict[str, list[str]] = field(default_factory=dict)
    """Of each streamed file."""

    files: dict[str, bytes] = field(default_factory=dict)
    ends: list[dict[str, Any]] = field(default_factory=list)
    """What was said when an attempt was over."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get(HISTORY, [])]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads(self.lines["wandb-summary.json"][-1])

    def take(self, name: str, *, offset: int, content: list[str]) -> None:
        lines = self.lines.setdefault(name, [])
        lines[offset : offset + len(content)] = content


class WandbService:
    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"service": self}))
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> "WandbService":
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        match operation:
            case "RunResumeStatus":
                return {
                    "model": {
                        "id": "p",
                        "name": "p",
                        "entity": {"id": "e", "name": "e"},
                        "bucket": self.bucket(variables["name"]),
                    }
                }
            case "UpsertBucket":
                return {"upsertBucket": {"bucket": self.upserted(variables), "inserted": True}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/put/{variables['run']}/{name}"} for name in variables["files"]]
                return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
            case _:
                return {}

    def bucket(self, name: str) -> dict[str, Any] | None:
        run = self.runs.get(name)
        if run is None:
            return None
        history = run.lines.get(HISTORY, [])
        return {
            "id": name,
            "name": name,
            "displayName": name,
            "summaryMetrics": "{}",
            "historyLineCount": len(history),
            "historyTail": json.dumps(history[-1:]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "config": "{}",
            "tags": [],
            "wandbConfig": json.dumps({"t": 1}),
        }

    def upserted(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        run = self.runs.setdefault(name, ServedRun())
        run.config |= {key: each["value"] for key, each in json.loads(variables.get("config") or "{}").items()}
        run.host = variables.get("host") or run.host
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        return {"id": name, "name": name, "displayName": name, "project": project, "historyLineCount": 0}

    def stream(self, name: str, message: dict[str, Any]) -> None:
        run = self.runs[name]
        for file, part in (message.get("files") or {}).items():
            run.take(file, offset=part["offset"], content=part["content"])
        if message.get("complete"):
            run.ends.append({key: message.get(key) for key in ("exitcode", "preempting")})


class Handler(BaseHTTPRequestHandler):
    service: ClassVar[WandbService]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the library)
        pass

    def do_POST(self) -> None:
        message = json.loads(self.body())
        with self.service.lock:
            if "file_stream" in self.path:
                self.service.stream(self.path.split("/")[-2], message)
                self.reply(200, {})
            elif KEY_HEADER not in (self.headers.get("Authorization") or ""):
                self.reply(401, {"errors": [{"message": "user is not logged in"}]})
            else:
                self.reply(200, {"data": self.service.answer(message["operationName"], message["variables"])})

    def do_PUT(self) -> None:
        _, _, run, name = self.path.split("/", 3)
        with self.service.lock:
            self.service.runs[run].files[name] = self.body()
        self.reply(200, {})

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

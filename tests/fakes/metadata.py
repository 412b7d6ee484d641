"""A double of what GCE and EC2 tell their machines, as their documents describe it: paths, headers, tokens, status codes."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class MetadataServer(ThreadingHTTPServer):
    """`kind` says whose it is; the fields below may be changed at any time."""

    daemon_threads = True

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kind = kind
        self.preempted = "FALSE"
        self.maintenance = "NONE"
        self.action: str | None = None
        self.token = "token-1"
        self.broken = False
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.broken:
            self.wfile.write(b"nonsense\r\n\r\n")
        elif self.server.kind == "gce":
            self._gce()
        else:
            self._ec2()

    do_PUT = do_GET

    def _gce(self) -> None:
        """https://cloud.google.com/compute/docs/metadata/querying-metadata"""
        told = {"preempted": self.server.preempted, "maintenance-event": self.server.maintenance}
        prefix, _, name = self.path.rpartition("/")
        if self.command != "GET" or prefix != "/computeMetadata/v1/instance" or name not in told:
            self._answer(404, "")
        elif self.headers.get("Metadata-Flavor") != "Google":
            self._answer(403, "")
        else:
            self._answer(200, told[name], {"Metadata-Flavor": "Google", "Content-Type": "application/text"})

    def _ec2(self) -> None:
        """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html"""
        if self.path == "/latest/api/token":
            good = self.command == "PUT" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit()
            self._answer(200 if good else 400, self.server.token if good else "")
        elif self.headers.get("X-aws-ec2-metadata-token") != self.server.token:
            self._answer(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.server.action is not None:
            self._answer(200, self.server.action)
        else:
            self._answer(404, "")

    def _answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """Not on a test's stderr."""

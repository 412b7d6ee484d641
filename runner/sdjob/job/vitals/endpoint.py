"""A small HTTP server beside the training: GET /metrics and /healthz, nothing else, and never in the training's way.

Python's own: prometheus_client's server answers every path, with as many threads as there are clients and without a time limit.
Whatever clients do, at most MOST_CLIENTS threads wait for them, none longer than CLIENT_S; who comes on top is turned away.
"""

import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from sdjob.core.clock import Clock

MOST_CLIENTS = 8
# Prometheus gives up after as long by default: https://prometheus.io/docs/prometheus/latest/configuration/configuration/
CLIENT_S = 10.0
POLL_S = 0.5
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    body: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = TEXT


Pages = Mapping[str, Callable[[], Answer]]


class Handler(BaseHTTPRequestHandler):
    server: "Endpoint"  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "sdjob", ""
    timeout = CLIENT_S

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        self._send(page() if page else Answer("there is /metrics and /healthz here\n", HTTPStatus.NOT_FOUND))

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self._send(Answer("this is only for reading\n", HTTPStatus.METHOD_NOT_ALLOWED))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _send(self, answer: Answer) -> None:
        body = answer.body.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """A scrape every few seconds is no event of the run."""


class Endpoint(HTTPServer):
    """Serves `pages` from a thread of its own, each client in another."""

    def __init__(self, port: int, *, pages: Pages, clock: Clock) -> None:
        """Raises OSError where the port cannot be had. Port 0: any; `server_port` says which."""
        dual = socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if dual else socket.AF_INET
        self.pages = pages
        self._clock = clock
        self._clients: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(("", port), Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # HTTPServer would look up its own name, which may wait for a name server.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 (as the base class calls it)
        with self._lock:
            return len(self._clients) < MOST_CLIENTS

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._clients[request] = self._clock.monotonic_s()
        threading.Thread(target=self._answer, args=(request, client_address), name="metrics-client", daemon=True).start()

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        try:
            with suppress(OSError):  # the client went away, or was cut off
                self.finish_request(request, client_address)
        finally:
            with self._lock:
                del self._clients[request]
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Between two clients: a socket's own timeout begins anew with every byte, so the slowest are cut off here."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            for client, since_s in self._clients.items():
                if now_s - since_s > CLIENT_S:
                    with suppress(OSError):  # it went away by itself
                        client.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(endpoint: Endpoint) -> Generator[None]:
    thread = threading.Thread(target=endpoint.serve_forever, args=(POLL_S,), name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        endpoint.shutdown()
        endpoint.server_close()

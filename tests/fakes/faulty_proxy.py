"""An HTTP proxy in front of a test server that spoils chosen requests: refuses, cuts off, damages, delays, or loses the reply.

The Host header goes through unchanged, since S3 signs it; a client sees the proxy as the server.
"""

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

PIECE_BYTES = 64 * 1024
HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding", "content-length"}

Kind = Literal["status", "refuse", "reset", "truncate", "hang", "flip", "slow", "drop_reply"]


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    """With its query."""
    headers: dict[str, str]
    """Names in small letters."""


@dataclass
class Fault:
    """What happens to the next `times` requests that fit.

    status      answers `status` and `reply`; the server never hears of it
    refuse      resets the connection before anything is forwarded
    drop_reply  forwards, then resets the connection instead of answering
    reset, truncate, hang, flip    after `after_bytes` of the reply's body: a reset, an end, nothing more, one bit turned
    slow        `delay_s` before every 64 KiB of the body
    """

    kind: Kind
    method: str = "GET"
    path: str = ""
    """A part of it."""
    when: Callable[[Asked], bool] = lambda asked: True
    times: int = 1
    after_bytes: int = 0
    status: int = 503
    reply: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    then: Callable[[], None] = lambda: None
    """Done when it strikes, before anything else."""

    def fits(self, asked: Asked) -> bool:
        return self.times > 0 and asked.method == self.method and self.path in asked.path and self.when(asked)


class FaultyProxy:
    """`with FaultyProxy(server.endpoint) as proxy: proxy.faults.append(Fault("reset", after_bytes=1000))`"""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.struck: list[Kind] = []
        self.closing = threading.Event()
        self.away = threading.Event()
        """Set once the server could not be reached, or broke off: the client then sees a reset."""
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def fault_for(self, asked: Asked) -> Fault | None:
        with self._lock:
            self.asked.append(asked)
            for fault in self.faults:
                if fault.fits(asked):
                    fault.times -= 1
                    self.struck.append(fault.kind)
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def handle_any(self) -> None:
        body = self._body()
        asked = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        fault = self.proxy.fault_for(asked)
        if fault:
            fault.then()
        if fault and fault.kind == "refuse":
            return self._reset()
        if fault and fault.kind == "status":
            return self._answer(fault.status, list(fault.headers.items()), fault.reply)
        upstream = http.client.HTTPConnection(self.proxy.upstream.hostname or "", self.proxy.upstream.port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            upstream.request(self.command, self.path, body=body, headers=headers)
            reply = upstream.getresponse()
            if fault and fault.kind == "drop_reply":
                reply.read()
                return self._reset()
            return self._relay(reply, fault)
        except (OSError, http.client.HTTPException):
            self.proxy.away.set()
            return self._reset()
        finally:
            upstream.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = handle_any

    def _body(self) -> bytes | None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces: list[bytes] = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        length = self.headers.get("Content-Length")
        return None if length is None else self.rfile.read(int(length))

    def _relay(self, reply: http.client.HTTPResponse, fault: Fault | None) -> None:
        here, there = self.headers.get("Host", ""), self.proxy.upstream.netloc
        headers = [(name, value.replace(there, here)) for name, value in reply.getheaders() if name.lower() not in HOP_BY_HOP]
        length = reply.getheader("Content-Length")
        if length is None:  # chunked: the whole is taken, so that its length can be said
            return self._answer(reply.status, headers, reply.read(), fault)
        self._head(reply.status, headers, int(length))
        sent = 0
        while self.command != "HEAD" and (piece := reply.read(PIECE_BYTES)):
            if not self._send(piece, sent=sent, fault=fault):
                return None
            sent += len(piece)
        return None

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault | None = None) -> None:
        self._head(status, headers, len(body))
        if self.command != "HEAD":
            self._send(body, sent=0, fault=fault)

    def _head(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status)
        for name, value in [*headers, ("Content-Length", str(length))]:
            self.send_header(name, value)
        self.end_headers()

    def _send(self, piece: bytes, *, sent: int, fault: Fault | None) -> bool:
        """False: the connection is done with."""
        at = fault.after_bytes - sent if fault else -1
        if fault and fault.kind == "slow":
            self.proxy.closing.wait(fault.delay_s)
        elif fault and fault.kind == "flip" and 0 <= at < len(piece):
            piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
        elif fault and fault.kind in {"reset", "truncate", "hang"} and at < len(piece):
            self.wfile.write(piece[: max(at, 0)])
            self.wfile.flush()
            self._stop(fault.kind)
            return False
        try:
            self.wfile.write(piece)
        except OSError:  # a reader that has had enough hangs up
            self.close_connection = True
            return False
        return True

    def _stop(self, kind: Kind) -> None:
        if kind == "reset":
            return self._reset()
        if kind == "hang":
            self.proxy.closing.wait()
        self.close_connection = True
        return None

    def _reset(self) -> None:
        """https://man7.org/linux/man-pages/man7/socket.7.html: lingering for 0 s, close() sends RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):  # after a reset there is nothing left to flush
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Silent."""

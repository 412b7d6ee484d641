"""Storage that is away, hangs or is full in the middle of a run: the training goes on, what was not saved is said, and the end
is the one that there would have been without it."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes.blows import start_small
from fakes.faulty_proxy import Asked, Fault, FaultyProxy
from fakes.running import Job, Running, Workshop, wait_until
from fakes.servers import start_seaweed
from fakes.weather import inside_mounts, small_disk
from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.history import History
from sdjob.core.clock import SystemClock
from sdjob.core.log import Log
from sdjob.spec.places import parse_place
from sdjob.store.open import open_store

EVERY = 10
SHORT, LONG = 800, 15_000  # steps of at least 8 ms: more than what happens on the way takes
A_MINUTE_S = 60
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
FOR_EVER = 10**9
Away = Callable[[Any, FaultyProxy], Any]


def small(workshop: Workshop, folder: Path, *, steps: int, to: str, **more: Any) -> Job:
    fields: dict[str, Any] = {"train__steps": steps, "checkpoint__every_steps": EVERY, "checkpoint__keep": 10**6, **more}
    return workshop.job(folder, validation=None, publish=[], checkpoint__to=to, **fields)


def undisturbed(workshop: Workshop, *, steps: int) -> str:
    """The digest of the same job in good weather."""

    def make(folder: Path) -> None:
        job = small(workshop, folder / "job", steps=steps, to=str(folder / "job/run"))
        ended = start_small(job, environment={}).end()
        assert ended.code == 0, ended.output

    return Job(workshop._made(f"storage-there-{steps}", make) / "job").done_digest()


@contextmanager
def refused(_server: Any, proxy: FaultyProxy) -> Iterator[None]:
    """Nobody listens any more."""

    def always(_: Asked) -> bool:
        return True

    proxy.faults += [Fault("refuse", method=method, when=always, times=FOR_EVER) for method in METHODS]
    yield
    proxy.faults.clear()


@contextmanager
def hung(server: Any, _proxy: FaultyProxy) -> Iterator[None]:
    """Connections are taken, and nothing is ever answered."""
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


@contextmanager
def hung_for_the_ledger(_server: Any, proxy: FaultyProxy) -> Iterator[None]:
    """Nothing that an attempt tells of itself is ever answered."""
    over = threading.Event()
    proxy.faults.append(Fault("refuse", method="PUT", path="/attempts/", then=over.wait, times=FOR_EVER))
    yield
    proxy.faults.clear()
    over.set()


def skipped(running: Running, *, after: int) -> int:
    """The step of the next save that is left out because the one before it is on its way still."""
    return running.wait_for("save-missed", step=lambda step: step > after)["step"]


def history_at(place: str) -> History:
    store = open_store(parse_place(place, base=Path("/")))
    return CommitLog(store, clock=SystemClock(), log=Log(mode="text", secrets=())).replay()


def check_end(running: Running, *, bucket: str, server: Any, digest: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps committed."""
    ended = running.end()
    assert ended.code == 0, ended.output
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    history = history_at(f"s3://{bucket}/run")
    assert history.done is not None
    assert history.done.digest == digest
    committed = [commit.step for commit in history.commits]
    assert committed == ended.committed == sorted(set(committed))
    return committed


@pytest.fixture
def away(tmp_path, workshop, monkeypatch) -> Callable[..., None]:
    """A server of this test's own goes away after the first commit, until `until` returns; the job is of so many steps."""

    def leave(how: Away, *, steps: int, until: Callable[[Running], object]) -> None:
        server = start_seaweed(tmp_path / "seaweed")
        try:
            bucket = server.new_bucket()
            job = small(workshop, tmp_path / "job", steps=steps, to=f"s3://{bucket}/run")
            with FaultyProxy(server.endpoint) as proxy:
                environment = {**server.environment, "AWS_ENDPOINT_URL_S3": proxy.endpoint}
                running = start_small(job, environment=environment)
                running.wait_for("commit")
                with how(server, proxy):
                    until(running)
                digest = undisturbed(workshop, steps=steps)
                committed = check_end(running, bucket=bucket, server=server, digest=digest, monkeypatch=monkeypatch)
            assert len(committed) < steps // EVERY
        finally:
            server.kill()

    return leave


@pytest.mark.parametrize("how", [refused, hung, hung_for_the_ledger])
def test_the_training_goes_on_while_storage_is_away(how, away):
    """Ten saves are due meanwhile: each is said to be left out, none is waited for."""

    def until(running: Running) -> None:
        step = 0
        for _ in range(10):
            step = skipped(running, after=step)

    away(how, steps=SHORT, until=until)


@pytest.mark.parametrize("how", [hung, hung_for_the_ledger])
def test_a_stop_request_ends_in_time_though_storage_says_nothing(how, workshop, tmp_path, monkeypatch):
    """Nobody's patience with a store is part of the notice."""
    server = start_seaweed(tmp_path / "seaweed")
    try:
        place = f"s3://{server.new_bucket()}/run"
        job = small(workshop, tmp_path / "job", steps=LONG, to=place, run__notice_s=2.0)
        with FaultyProxy(server.endpoint) as proxy:
            running = start_small(job, environment={**server.environment, "AWS_ENDPOINT_URL_S3": proxy.endpoint})
            committed = running.wait_for("commit")["step"]
            with how(server, proxy):
                skipped(running, after=committed + EVERY)
                running.signal(signal.SIGTERM)
                ended = running.end()
        assert ended.code == 75, ended.output
        assert ended.of("error")[-1]["message"].startswith("stopped on request; the notice ended")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert [commit.step for commit in history_at(place).commits] == ended.committed
    finally:
        server.kill()


@pytest.mark.full_matrix
@pytest.mark.parametrize("how", [refused, hung])
def test_a_minute_without_storage(how, away):
    away(how, steps=LONG, until=lambda _: time.sleep(A_MINUTE_S))


def test_the_scratch_disk_is_full_for_a_while(workshop, tmp_path):
    """What else lies on the disk takes the last byte; a save that finds no room is given up and said, the next one is whole."""
    job = small(workshop, tmp_path / "job", steps=SHORT, to=str(tmp_path / "job/run"))
    scratch = job.folder / "machine-a"
    scratch.mkdir()
    running = start_small(job, environment={}, inside=inside_mounts(small_disk(scratch, size_kib=4096)))
    running.wait_for("commit")
    disk = Path(f"/proc/{running.pid}/root{scratch}")

    def is_missed() -> bool:
        fill(disk / "filler")  # again: a save that was under way before has given its room back
        return "No space left" in running.output

    wait_until(is_missed, what="a save that finds no room")
    failed = running.wait_for("save-missed", message=lambda message: "No space left" in message)
    (disk / "filler").unlink()
    ended = running.end()
    assert ended.code == 0, ended.output
    assert failed["step"] not in ended.committed
    assert max(ended.committed) == SHORT
    assert job.done_digest() == undisturbed(workshop, steps=SHORT)


def fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 512)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

"""Runs struck at random by SIGKILL, SIGTERM and SIGSTOP, on a folder, on S3 and on GCS behind a network that fails: the final
state is that of an uninterrupted run, every kept byte is whole, and nothing that was committed is trained again.

The parent is the real one, the trainer small (fakes/small_trainer.py). A few by default, hundreds of blows with `make faults`;
the table of what fell is printed at the end. Which blow falls is the seed's choice, when exactly also the machine's.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.blows import ROW, Blow, Struck
from fakes.faulty_proxy import Asked, Fault, FaultyProxy
from fakes.running import Job, Workshop
from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.verify import verify
from sdjob.core.clock import SystemClock
from sdjob.core.log import Log
from sdjob.spec.places import parse_place
from sdjob.store.open import open_store

SMALL: dict[str, Any] = {
    "train__steps": 100,
    "checkpoint__every_steps": 5,
    "checkpoint__keep": 2,
    "validation": None,
    "publish": [],
}
TORCH: dict[str, Any] = {**SMALL, "train__steps": 400, "checkpoint__every_steps": 2, "train__ema": {"decay": 0.9}}
KILLS: tuple[Blow, ...] = ("kill the parent",)  # it takes the trainer with it
MANY_KILLS = 12
SERVERS = {"s3": ("seaweed", "AWS_ENDPOINT_URL_S3"), "gs": ("gcs_server", "STORAGE_EMULATOR_HOST")}
LIKELY = 0.02  # of each kind of trouble, for each request
FOR_EVER = 10**9
BY_DEFAULT, WITH_FAULTS = 1, 22  # runs on each kind of place


@contextmanager
def bad_network(upstream: str, *, seed: int) -> Iterator[str]:
    """The address of a proxy that spoils requests of all kinds now and then."""
    rng = random.Random(seed)

    def now_and_then(_: Asked) -> bool:
        return rng.random() < LIKELY

    def spoil(kind: Any, *methods: str, **how: Any) -> list[Fault]:
        return [Fault(kind, method=method, when=now_and_then, times=FOR_EVER, **how) for method in methods]

    with FaultyProxy(upstream) as proxy:
        proxy.faults += spoil("status", "GET", "PUT", "POST", "DELETE", status=503)
        proxy.faults += spoil("drop_reply", "PUT", "POST", "DELETE")
        proxy.faults += spoil("refuse", "GET", "PUT")
        proxy.faults += [*spoil("reset", "GET", after_bytes=100), *spoil("truncate", "GET", after_bytes=50)]
        proxy.faults += spoil("flip", "GET", path="/blob/", after_bytes=20)
        yield proxy.endpoint


@dataclass
class Place:
    """Where a run is kept; `environment` is what a struck process reaches it by."""

    to: str
    environment: dict[str, str]

    def check(self, *, digest: str) -> None:
        log = CommitLog(open_store(parse_place(self.to, base=Path("/"))), clock=SystemClock(), log=Log(mode="text", secrets=()))
        report = verify(log)
        assert report.is_whole, report
        assert report.history.done is not None
        assert report.history.done.digest == digest
        assert report.restorable_step == SMALL["train__steps"]
        assert len(report.commits) <= SMALL["checkpoint__keep"]


@pytest.fixture(scope="module")
def whole(workshop: Workshop) -> str:
    """The digest of a run that nobody disturbs."""

    def make(folder: Path) -> None:
        struck = Struck(workshop.job(folder / "job", **SMALL), seed=0, environment={}, least=0)
        struck.to_the_end()

    return Job(workshop._made("small-run", make) / "job").done_digest()


@contextmanager
def place_of(kind: str, request: pytest.FixtureRequest, folder: Path, *, seed: int) -> Iterator[Place]:
    if kind == "file":
        yield Place((folder / "run").as_uri(), {})
        return
    fixture, variable = SERVERS[kind]
    server = request.getfixturevalue(fixture)
    patch = request.getfixturevalue("monkeypatch")
    for name, value in server.environment.items():
        patch.setenv(name, value)
    with bad_network(server.endpoint, seed=seed) as endpoint:
        yield Place(f"{kind}://{server.new_bucket()}/run", {variable: endpoint})


@pytest.fixture
def strike(
    request: pytest.FixtureRequest, tmp_path: Path, workshop: Workshop, whole: str, record_property: Callable[[str, object], None]
) -> Callable[..., Struck]:
    def to_the_end(kind: str, *, seed: int, **blows: Any) -> Struck:
        with place_of(kind, request, tmp_path, seed=seed) as place:
            job = workshop.job(tmp_path / "job", **{**SMALL, "checkpoint__to": place.to})
            struck = Struck(job, seed=seed, environment=place.environment, **blows).to_the_end()
            place.check(digest=whole)
        record_property(ROW, [kind, dict(struck.blows)])
        return struck

    return to_the_end


@pytest.mark.parametrize("seed", range(BY_DEFAULT))
@pytest.mark.parametrize("kind", ["file", *SERVERS])
def test_a_struck_run_ends_as_if_nothing_had_been(kind, seed, strike):
    strike(kind, seed=seed)


@pytest.mark.full_matrix
@pytest.mark.parametrize("seed", range(BY_DEFAULT, BY_DEFAULT + WITH_FAULTS))
@pytest.mark.parametrize("kind", ["file", *SERVERS])
def test_many_struck_runs(kind, seed, strike):
    strike(kind, seed=seed)


@pytest.mark.full_matrix
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["file", *SERVERS])
def test_a_run_killed_many_times(kind, seed, strike):
    struck = strike(kind, seed=seed, least=MANY_KILLS, blows_of=KILLS, longest_moment_s=0.0)
    assert struck.blows.total() == MANY_KILLS


@pytest.mark.full_matrix
@pytest.mark.parametrize("method", ["lora", "full"])
def test_torch_killed_at_random(method, workshop, tmp_path, record_property):
    """Twenty times each: with the real trainer an attempt is its start, for the most part."""
    fields = {**TORCH, "train__method": method}
    whole = workshop.finished(f"blows-{method}", **fields)
    struck = Struck(
        workshop.job(tmp_path / "job", **fields),
        seed=0,
        environment={},
        least=20,
        blows_of=KILLS,
        module="sdjob",
        longest_moment_s=3.0,
    ).to_the_end()
    assert struck.job.done_digest() == whole.done_digest()
    assert sum(struck.blows.values()) == struck.least, struck.blows
    record_property(ROW, [f"file, torch, {method}", dict(struck.blows)])

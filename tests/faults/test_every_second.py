"""Every second of a run that was killed twice, on storage that is slow: the ledger accounts for all of them, and `sdjob report`,
the benchmark of goodput and whoever stood beside it with a watch come to the same figures."""

import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.blows import TESTS
from fakes.clock import FakeClock
from fakes.faulty_proxy import Fault, FaultyProxy
from fakes.running import Job, Running
from sdjob.core.log import Log
from sdjob.job.before import Before
from sdjob.ledger.read import read_ledger
from sdjob.ledger.seconds import account
from sdjob.report.write import write_report
from sdjob.spec.places import parse_place
from sdjob.store.base import ObjectStore
from sdjob.store.open import open_store

STEPS, EVERY = 1000, 100
SMALL: dict[str, Any] = {
    "train__steps": STEPS,
    "checkpoint__every_steps": EVERY,
    "checkpoint__keep": 2,
    "validation": None,
    "publish": [],
}
SLOW_S = 0.1  # each request that reads or writes an object


@pytest.fixture
def throttled(seaweed, monkeypatch):
    """A bucket behind a slow line, and what reaches it that way."""
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    with FaultyProxy(seaweed.endpoint) as proxy:
        proxy.faults += [Fault("slow", method=m, times=10**9, then=lambda: time.sleep(SLOW_S)) for m in ("GET", "PUT")]
        yield f"s3://{seaweed.new_bucket()}/run", {"AWS_ENDPOINT_URL_S3": proxy.endpoint}


def start(job: Job, *, environment: dict[str, str]) -> Running:
    command = [sys.executable, "-m", "fakes.small_run", "run", "--log", "json", str(job.file)]
    own = {"SDJOB_SCRATCH": str(job.scratch), "PYTHONPATH": str(TESTS)}
    return Running.begin(command, folder=job.folder, environment={**environment, **own})


def lived(job: Job, *, until_commit: int | None, environment: dict[str, str]) -> Before:
    """One attempt by our own watch: until it is killed some steps after a commit, or until its last word."""
    began_s = time.time()
    running = start(job, environment=environment)
    if until_commit is None:
        ended = running.end()
        assert ended.code == 0, ended.output
        return Before(began_s, ended.one("done")["time"], 0)
    running.wait_for("commit", step=lambda step: step >= until_commit)
    time.sleep(0.1)
    ended_s = time.time()
    assert running.kill().code == -9
    return Before(began_s, ended_s, 137)


@pytest.fixture
def struck(workshop, tmp_path, throttled) -> tuple[list[Before], ObjectStore]:
    place, environment = throttled
    job = workshop.job(tmp_path / "job", **SMALL, checkpoint__to=place)
    lives: list[Before] = []
    for until_commit in (2 * EVERY, 5 * EVERY, None):
        before = lives[-1].environment() if lives else {}
        lives.append(lived(job, until_commit=until_commit, environment={**environment, **before}))
    return lives, open_store(parse_place(place, base=Path("/")))


def test_the_ledger_the_report_the_benchmark_and_a_watch_agree(struck, tmp_path, monkeypatch):
    lives, store = struck
    ledgers = read_ledger(store)
    sums = account(ledgers)
    wall_s = lives[-1].ended_s - lives[0].began_s
    paid_s = sum(life.ended_s - life.began_s for life in lives)
    assert sum(sums.seconds().values()) == pytest.approx(wall_s, rel=0.01)
    assert sums.paid_s == pytest.approx(paid_s, rel=0.01)
    assert all(sums.seconds()[bucket] > 0 for bucket in ("start", "stage", "restore", "train", "save", "lost", "waiting"))
    assert [attempt.kept_step for attempt in sums.attempts][-1] == STEPS

    page = tmp_path / "report.html"
    write_report(store, out=page, price=None, clock=FakeClock(unix_s=time.time()), log=Log(mode="json", secrets=()))
    told = re.search(r"Goodput</dt><dd>([\d.]+) %", page.read_text(encoding="utf-8"))
    assert told
    assert float(told[1]) == pytest.approx(100 * sums.goodput, abs=0.05), "rounded to a tenth"

    monkeypatch.syspath_prepend(str(TESTS.parent / "benchmarks"))
    from goodput_check import Life, share_of  # (found only now)

    by_benchmark = share_of(ledgers, lives=[Life(life.ended_s - life.began_s, life.ended_s, 0) for life in lives])
    assert by_benchmark == pytest.approx(sums.goodput, rel=0.01)

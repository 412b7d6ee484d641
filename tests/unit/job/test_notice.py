"""A spot machine's own notice becomes a stop request; whatever else its endpoint says or fails to say harms nothing."""

import io
import json
import socket
import threading

import pytest

from fakes.clock import FakeClock
from fakes.metadata import MetadataServer
from sdjob.core.errors import StoppedError
from sdjob.core.log import Log
from sdjob.job.metadata import Ec2, Gce, MetadataError
from sdjob.job.notice import FIRST_TRIES, NoticeWatch, candidates, notice_watched
from sdjob.job.stop import StopRequest
from sdjob.spec.run import RunSpec

TERMINATE = '{"action": "terminate", "time": "2026-11-23T08:22:00Z"}'


@pytest.fixture
def servers():
    made = {kind: MetadataServer(kind) for kind in ("gce", "ec2")}
    yield made
    for server in made.values():
        server.close()


@pytest.fixture
def gce(servers):
    return servers["gce"]


@pytest.fixture
def ec2(servers):
    return servers["ec2"]


def nobody():
    """A host where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Bench:
    def __init__(self, *machines, notice_s=15.0):
        self.clock, self.out = FakeClock(), io.StringIO()
        self.stop = StopRequest(self.clock, notice_s=notice_s)
        self.log = Log(mode="json", stream=self.out, clock=self.clock, secrets=())
        self.watch = NoticeWatch(machines, self.stop, self.log)

    @property
    def said(self):
        return [json.loads(line)["event"] for line in self.out.getvalue().splitlines()]

    def ending(self):
        with pytest.raises(StoppedError) as caught:
            self.stop.check()
        return str(caught.value)


class TestGce:
    def test_the_notice_is_a_stop_request_with_the_jobs_own_time(self, gce):
        b = Bench(Gce(gce.host))
        assert b.watch.turn() == 0.0
        assert b.watch.turn() == 1.0
        assert not b.stop.requested
        gce.preempted = "TRUE"
        assert b.watch.turn() is None
        assert b.stop.seconds_left() == 15.0
        assert b.ending().startswith("stopped on request: Google Compute Engine preempts this machine; ")
        assert b.said == ["notice"]

    def test_maintenance_is_told_once_and_training_goes_on(self, gce):
        b = Bench(Gce(gce.host))
        b.watch.turn()
        for event in ("MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"):
            gce.maintenance = event
            assert b.watch.turn() == 1.0
        assert b.said == ["maintenance"]
        assert not b.stop.requested

    def test_another_server_at_its_name_is_not_believed(self, ec2):
        with pytest.raises(MetadataError):
            Gce(ec2.host).notice()


class TestEc2:
    def test_the_notice_is_a_stop_request(self, ec2):
        b = Bench(Ec2(ec2.host), notice_s=90.0)
        assert b.watch.turn() == 0.0
        assert b.watch.turn() == 5.0
        ec2.action = TERMINATE
        assert b.watch.turn() is None
        assert b.stop.seconds_left() == 90.0
        assert "EC2 takes this spot machine back (terminate at 2026-11-23T08:22:00Z)" in b.ending()

    def test_words_that_are_new_are_a_notice_all_the_same(self, ec2):
        machine = Ec2(ec2.host)
        for action in ("{}", "[]", "soon", '{"action": "vanish"}'):
            ec2.action = action
            assert machine.notice() == "EC2 takes this spot machine back (without a time)"

    def test_one_token_for_many_questions_and_a_new_one_when_it_expires(self, ec2):
        machine = Ec2(ec2.host)
        for _ in range(3):
            assert machine.notice() is None
        assert ec2.asked.count("PUT /latest/api/token") == 1
        ec2.token = "token-2"
        assert machine.notice() is None
        assert ec2.asked.count("PUT /latest/api/token") == 2

    def test_the_token_is_shown_nowhere(self, ec2):
        machine = Ec2(ec2.host)
        machine.notice()
        assert ec2.token not in repr(machine)

    def test_a_machine_of_another_cloud_is_none(self, gce):
        with pytest.raises(MetadataError):
            Ec2(gce.host).notice()


def test_the_one_that_answers_is_asked_from_then_on(servers, gce, ec2):
    b = Bench(Gce(nobody()), Ec2(ec2.host))
    b.watch.turn()
    assert b.watch.machine.name == "EC2"


def test_where_no_cloud_answers_it_is_asked_a_few_times_more():
    b = Bench(Gce(nobody()), Ec2(nobody()))
    assert [b.watch.turn() for _ in range(FIRST_TRIES)] == [10.0] * (FIRST_TRIES - 1) + [None]
    assert b.said == ["notice-unwatched"]
    assert not b.stop.requested


def test_an_endpoint_that_talks_nonsense_or_falls_silent_harms_nothing(gce):
    b = Bench(Gce(gce.host))
    b.watch.turn()
    gce.broken = True
    assert [b.watch.turn() for _ in range(3)] == [1.0] * 3
    assert b.said == ["notice-unknown"], "said once"
    gce.broken, gce.preempted = False, "TRUE"
    assert b.watch.turn() is None
    assert b.stop.requested


def test_an_endpoint_that_hangs_is_left_alone_after_a_second(monkeypatch):
    monkeypatch.setattr("sdjob.job.metadata.TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(MetadataError, match="timed out"):
        Gce(f"127.0.0.1:{silent.getsockname()[1]}").notice()


def test_after_a_stop_request_nobody_is_asked(gce):
    b = Bench(Gce(gce.host))
    b.stop.request()
    assert b.watch.turn() is None
    assert gce.asked == []


class TestTheThread:
    def watched(self, b, environment, *, spot=True):
        return notice_watched(RunSpec(spot=spot), stop=b.stop, environment=environment, log=b.log)

    def test_on_a_spot_machine_the_notice_wakes_the_run(self, gce):
        b = Bench()
        gce.preempted = "TRUE"
        with self.watched(b, {"GCE_METADATA_HOST": gce.host, "AWS_EC2_METADATA_DISABLED": "true"}):
            while not b.stop.requested:
                threading.Event().wait(0.005)

    def test_elsewhere_nobody_is_asked(self, gce):
        b = Bench()
        with self.watched(b, {"GCE_METADATA_HOST": gce.host}, spot=False):
            assert "notice" not in {thread.name for thread in threading.enumerate()}
        assert gce.asked == []

    def test_it_ends_with_the_run(self, gce):
        b = Bench()
        with self.watched(b, {"GCE_METADATA_HOST": gce.host, "AWS_EC2_METADATA_DISABLED": "true"}):
            (thread,) = [thread for thread in threading.enumerate() if thread.name == "notice"]
        thread.join(60)
        assert not thread.is_alive()


def test_addresses_are_taken_from_the_sdks_own_variables():
    assert [machine.host for machine in candidates({})] == ["metadata.google.internal", "169.254.169.254"]
    named = candidates({"GCE_METADATA_HOST": "here:1", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://there:2/"})
    assert [machine.host for machine in named] == ["here:1", "there:2"]
    assert [machine.name for machine in candidates({"AWS_EC2_METADATA_DISABLED": "TRUE"})] == ["Google Compute Engine"]

"""Over real sockets: who asks rightly is answered, and no client, however slow or many, holds up anybody else."""

import http.client
import io
import json
import socket
import urllib.request

import pytest

from fakes.clock import FakeClock
from sdjob.core.errors import UsageError
from sdjob.core.log import Log
from sdjob.job.stop import StopRequest
from sdjob.job.vitals.endpoint import CLIENT_S, MOST_CLIENTS, Endpoint, serving
from sdjob.job.vitals.pages import metrics_served, pages_of
from sdjob.job.vitals.signs import QUIET_S, Vitals
from unit.spec.jobs import job

LIMIT_S = 60  # for a hang; answers come at once


class Bench:
    def __init__(self, *, secrets=()):
        self.clock = FakeClock()
        self.vitals = Vitals(job(), self.clock)
        self.stop = StopRequest(self.clock, notice_s=10.0)
        self.endpoint = Endpoint(0, pages=pages_of(self.vitals, stop=self.stop, secrets=secrets), clock=self.clock)

    def ask(self, path, *, method="GET", host="127.0.0.1"):
        connection = http.client.HTTPConnection(host, self.endpoint.server_port, timeout=LIMIT_S)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer, body

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.endpoint.server_port), timeout=LIMIT_S)


@pytest.fixture
def bench():
    made = Bench()
    with serving(made.endpoint):
        yield made


def test_metrics(bench):
    bench.vitals.note({"step": 7, "loss": 0.5})
    answer, body = bench.ask("/metrics")
    assert (answer.status, answer.getheader("Content-Type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "\nsdjob_step 7\n" in body
    assert bench.ask("/metrics?format=any")[1] == body


def test_the_head_of_a_page(bench):
    answer, body = bench.ask("/metrics", method="HEAD")
    assert (answer.status, body) == (200, "")
    assert int(answer.getheader("Content-Length")) == len(bench.ask("/metrics")[1].encode())


@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz/x", "/../etc/passwd"])
def test_any_other_path_is_404(bench, path):
    assert bench.ask(path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_any_other_method_is_refused(bench, method):
    answer, _ = bench.ask("/metrics", method=method)
    assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD")


def test_health(bench):
    assert (bench.ask("/healthz")[0].status, bench.ask("/healthz")[1]) == (200, "ok: staging\n")
    bench.vitals.note({"step": 7, "loss": 0.5})
    bench.clock.advance(QUIET_S + 1)
    answer, body = bench.ask("/healthz")
    assert answer.status == 503
    assert body.startswith("no step since step 7, 30 minutes ago")


def test_an_attempt_that_was_asked_to_stop_is_not_judged(bench):
    bench.vitals.note({"step": 7, "loss": 0.5})
    bench.clock.advance(QUIET_S + 1)
    bench.stop.request()
    assert bench.ask("/healthz")[0].status == 200


def test_it_says_nothing_of_python_and_nothing_on_stderr(bench, capfd):
    answer, _ = bench.ask("/metrics")
    bench.ask("/nowhere")
    assert answer.getheader("Server").strip() == "sdjob"
    assert capfd.readouterr().err == ""


def test_a_secret_is_blanked_out():
    made = Bench(secrets=("emoji",))
    with serving(made.endpoint):
        assert 'name="***"' in made.ask("/metrics")[1]


def test_silent_clients_hold_up_nobody_and_are_cut_off(bench):
    silent = [bench.connect() for _ in range(MOST_CLIENTS - 1)]
    while len(bench.endpoint._clients) < len(silent):
        pass
    assert bench.ask("/metrics")[0].status == 200, "there is room for one more"
    bench.clock.advance(CLIENT_S + 0.1)
    bench.endpoint.service_actions()
    assert [client.recv(1) for client in silent] == [b""] * len(silent)
    for client in silent:
        client.close()


def test_who_comes_on_top_is_turned_away(bench):
    silent = [bench.connect() for _ in range(MOST_CLIENTS)]
    while len(bench.endpoint._clients) < len(silent):
        pass
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        bench.ask("/metrics")
    silent.pop().close()
    while len(bench.endpoint._clients) > len(silent):
        pass
    assert bench.ask("/metrics")[0].status == 200
    for client in silent:
        client.close()


def test_a_client_that_never_reads_is_cut_off(bench):
    bench.endpoint.pages = {"/metrics": lambda: big}
    big = type("Big", (), {"body": "x" * 50_000_000, "status": 200, "content_type": "text/plain"})()
    with bench.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        client.recv(1)
        bench.clock.advance(CLIENT_S + 0.1)
        bench.endpoint.service_actions()
        while bench.endpoint._clients:
            pass


def test_over_ipv6_where_there_is_any(bench):
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    assert bench.ask("/healthz", host="::1")[0].status == 200


class TestThePort:
    def serve(self, environment):
        self.said = io.StringIO()
        clock = FakeClock()
        stop = StopRequest(clock, notice_s=1.0)
        log = Log(mode="json", stream=self.said, clock=clock, secrets=())
        return metrics_served(Vitals(job(), clock), stop=stop, environment=environment, log=log)

    def test_nothing_listens_unless_asked(self):
        with self.serve({}) as port:
            assert port is None

    def test_it_listens_where_asked_and_no_longer_than_the_run(self):
        with self.serve({"SDJOB_METRICS_PORT": "0"}) as port:
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=LIMIT_S)
            with answer:
                assert answer.read() == b"ok: staging\n"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)

    def test_a_port_that_is_taken_costs_no_training(self):
        with socket.create_server(("", 0)) as other, self.serve({"SDJOB_METRICS_PORT": str(other.getsockname()[1])}) as port:
            assert port is None
        told = json.loads(self.said.getvalue())
        assert (told["event"], told["level"]) == ("metrics", "warning")

    @pytest.mark.parametrize("text", ["http", "-1", "65536", "9464.0"])
    def test_a_port_that_is_none(self, text):
        serving = self.serve({"SDJOB_METRICS_PORT": text})
        with pytest.raises(UsageError, match="SDJOB_METRICS_PORT: a port is a number"), serving:
            pass

"""Which failures are those of a host that is gone, and who joins others."""

import jax
import pytest

from sdjob.train_flax import hosts
from sdjob.train_flax.mesh import peak_memory_mib

GLOO = "INTERNAL: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4"
LATE = "UNKNOWN: Gloo context initialization failed: DEADLINE_EXCEEDED: GetKeyValue() timed out with key: cpu:gloo/0,1/1"
SERVICE = "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats): /job:jax_worker/replica:0/task:1"


@pytest.mark.parametrize("words", [GLOO, SERVICE, LATE, "connect: Connection refused"])
def test_a_host_that_does_not_answer(monkeypatch, words):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert hosts.is_gone(jax.errors.JaxRuntimeError(words))


def test_another_failure_among_several_hosts(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not hosts.is_gone(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
    assert not hosts.is_gone(ValueError(GLOO))


def test_alone_nobody_can_be_gone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not hosts.is_gone(jax.errors.JaxRuntimeError(GLOO))


def test_whoever_is_alone_joins_nobody(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("joined"))
    hosts.join("cpu", environment={})
    assert hosts.leave_at_once(65) == 65


def test_several_meet_where_the_launcher_says(monkeypatch):
    met = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda address, **options: met.update(options, address=address))
    rendezvous = {"WORLD_SIZE": "4", "RANK": "3", "MASTER_ADDR": "host-0.gang", "MASTER_PORT": "29500"}
    hosts.join("cuda", environment=rendezvous)
    assert (met["address"], met["num_processes"], met["process_id"]) == ("host-0.gang:29500", 4, 3)


def test_the_machines_of_a_tpu_slice_are_found_by_jax(monkeypatch):
    given = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *address, **options: given.append((address, options)))
    hosts.join("tpu", environment={"WORLD_SIZE": "4", "RANK": "3", "MASTER_ADDR": "host-0.gang", "MASTER_PORT": "29500"})
    assert given == [((), {"shutdown_timeout_seconds": hosts.LONGEST_WAIT_S})]


def test_the_first_is_the_one_whose_parent_owns_the_run():
    assert hosts.is_first({})
    assert hosts.is_first({"RANK": "0"})
    assert not hosts.is_first({"RANK": "1"})


@pytest.mark.parametrize(("told", "expected"), [(None, None), ({"bytes_in_use": 1}, None), ({"peak_bytes_in_use": 5 << 20}, 5)])
def test_memory_where_the_device_tells(monkeypatch, told, expected):
    class Device:
        def memory_stats(self):
            return told

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert peak_memory_mib() == expected

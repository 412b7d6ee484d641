"""A cluster to speak to: the real client against a mock of the API server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.api_server import ApiServer
from fakes.clock import FakeClock
from sdjob.cluster.server import Server, connect
from sdjob.core.retry import Backoff


@pytest.fixture
def mock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path)
    server.start()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    yield server
    server.stop()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(mock: ApiServer, clock: FakeClock) -> Iterator[Server]:
    found = connect(context=None, namespace=None, backoff=Backoff(attempts=4, clock=clock))
    yield found
    found.api.rest_client.pool_manager.clear()

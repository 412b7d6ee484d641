"""A cluster to speak to: the real client against a mock of the API server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.api_server import ApiServer
from fakes.clock import FakeClock
from fakes.cluster_objects import pod
from sdjob.cluster.render import rendered
from sdjob.cluster.server import Server, connect
from sdjob.cluster.submit import submit
from sdjob.core.retry import Backoff
from sdjob.store.local import LocalStore
from unit.spec.jobs import job

NAME = "emoji-abcde"


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


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """What lies in the bucket."""
    store = LocalStore(tmp_path / "run")
    monkeypatch.setattr("sdjob.cluster.look.open_store", lambda _place: store)
    return store


def submitted(server: Server, mock: ApiServer, clock: FakeClock) -> None:
    given = job("run.kubernetes.namespace=ml", "checkpoint.to=s3://bucket/run")
    submit(rendered(given), server=server, replace=False, clock=clock)
    mock.put("/api/v1/namespaces/ml/pods/emoji-abcde", pod())

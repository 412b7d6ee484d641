"""`sdjob status --watch`: every change as lines, or one view on a terminal."""

import json

import pytest

from fakes.api_server import ApiServer, Fault
from fakes.clock import FakeClock
from fakes.terminal import terminal
from sdjob.cli.named import Named
from sdjob.cli.status import watch
from sdjob.cluster.server import Server
from sdjob.core.log import Log
from sdjob.ledger.write import LedgerWriter
from sdjob.store.local import LocalStore
from unit.cluster.conftest import NAME, submitted
from unit.spec.jobs import job


def test_watching_outlives_a_server_that_is_away(
    mock: ApiServer, server: Server, clock: FakeClock, capsys: pytest.CaptureFixture[str]
):
    submitted(server, mock, clock)
    mock.faults = [Fault("GET", "/jobs/emoji", 0, times=4)]
    looks: list[str] = []

    def ends(_verb: str, path: str) -> None:
        looks.append(path)
        if path.endswith("/pods") and looks.count(path) == 3:
            mock.state["/apis/batch/v1/namespaces/ml/jobs/emoji"]["status"] = {
                "conditions": [{"type": "Complete", "status": "True"}]
            }

    mock.on_request = ends
    watch(Named("emoji", job("checkpoint.to=/runs/emoji")), server=server, as_json=True, clock=clock, log=Log())
    told = capsys.readouterr()
    assert [json.loads(line)["state"] for line in told.out.splitlines()] == ["running", "done"]
    assert "warning: " in told.err
    assert "cannot reach the API server" in told.err


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_on_a_terminal_one_view_is_drawn_again(
    mock: ApiServer, server: Server, clock: FakeClock, store: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    submitted(server, mock, clock)
    writer = LedgerWriter(store, attempt=1, clock=clock)
    writer.event("start", host=NAME)
    writer.event("train", start_step=0, total_steps=64)
    writer.event("ready")
    writer.event("commit", step=30)

    def goes_on(_verb: str, path: str) -> None:
        if not path.endswith("/pods"):
            return
        step = 31 + len(looks)
        looks.append(step)
        writer.metrics(step, loss=0.25, step_s=1.0, images_per_s=4.0)
        writer.flush()
        if len(looks) == 3:
            mock.state["/apis/batch/v1/namespaces/ml/jobs/emoji"]["status"] = {
                "conditions": [{"type": "Complete", "status": "True"}]
            }

    looks: list[int] = []
    mock.on_request = goes_on
    with terminal(columns=90) as there:
        monkeypatch.setattr("sys.stdout", there.stream)
        watch(Named("emoji", job("checkpoint.to=s3://bucket/run")), server=server, as_json=False, clock=clock, log=Log())
        monkeypatch.undo()
    assert there.text.count("emoji: training") == 3
    assert "[############............] 33/64  loss 0.2500  0:31 left  4.0 images/s  commit 0:10 ago" in there.text
    seen = there.seen()
    assert seen[0] == "emoji: done"
    assert sum("emoji" in line for line in seen) == 1, "it stands there once"

"""Every state, and every cause of CLUSTER's list, of what has not ended."""

import json

import pytest

from fakes.api_server import ApiServer, Fault
from fakes.clock import FakeClock
from fakes.cluster_objects import event, pod, workload
from sdjob.cli.main import main
from sdjob.cli.status_text import lines
from sdjob.cluster.look import look
from sdjob.cluster.server import Server
from sdjob.cluster.status import judge
from sdjob.ledger.read import AttemptLedger
from sdjob.ledger.write import LedgerWriter
from sdjob.store.local import LocalStore
from unit.cluster.conftest import NAME, submitted
from unit.cluster.judged import READY, ledger, status
from unit.spec.jobs import job

# ---- waiting ---------------------------------------------------------------------------------------------------------------

NO_NODES = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. preemption: 0/3 nodes are available"
PENDING = {
    "no such node pool": (pod(phase="Pending", unschedulable=NO_NODES), []),
    "no such node pool (autoscaler)": (
        pod(phase="Pending", unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        [event(NAME, "NotTriggerScaleUp", "pod didn't trigger scale-up: 2 node(s) didn't match Pod's node affinity/selector")],
    ),
    "taint": (pod(phase="Pending", unschedulable="0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."), []),
    "full": (pod(phase="Pending", unschedulable="0/1 nodes are available: 1 Insufficient memory."), []),
    "quota": (
        pod(phase="Pending", unschedulable=NO_NODES),
        [event(NAME, "FailedScaleUp", "Node scale up in zones us-central1-a failed: GCE quota exceeded.")],
    ),
    "capacity": (
        pod(phase="Pending", unschedulable=NO_NODES),
        [
            event(
                NAME,
                "FailedScaleUp",
                "Node scale up in zones us-central1-a failed: GCE out of resources. ZONE_RESOURCE_POOL_EXHAUSTED",
            )
        ],
    ),
    "scaling up": (
        pod(phase="Pending", unschedulable=NO_NODES),
        [
            event(NAME, "FailedScaleUp", "GCE quota exceeded", at="2026-01-01T00:00:01Z"),
            event(NAME, "TriggeredScaleUp", "pod triggered scale-up: [{pool 0->1}]", at="2026-01-01T00:00:02Z"),
        ],
    ),
    "volume": (pod(phase="Pending", unschedulable='persistentvolumeclaim "fast-disk" not found'), []),
    "volume (mount)": (
        pod(phase="Pending", waiting=("ContainerCreating", "")),
        [event(NAME, "FailedMount", 'MountVolume.SetUp failed for volume "keys": secret "keys" not found')],
    ),
    "image": (
        pod(phase="Pending", waiting=("ImagePullBackOff", 'Back-off pulling image "x/sdjob:1"')),
        [event(NAME, "Failed", 'Failed to pull image "x/sdjob:1": unauthorized: authentication required, says the registry')],
    ),
    "secret": (pod(phase="Pending", waiting=("CreateContainerConfigError", 'secret "hub" not found')), []),
    "starting": (pod(phase="Pending", waiting=("ContainerCreating", "")), []),
    "new": (pod(phase="Pending", unschedulable=""), []),
}


@pytest.mark.parametrize("case", PENDING)
def test_why_a_pod_waits(case: str):
    waiting, events = PENDING[case]
    told = status(waiting, events=tuple(events))
    assert told.state == "pending"
    assert told.why.startswith(f"{case.partition(' (')[0]}: ")
    assert told.next_step
    assert told.activity is None


def test_the_registry_s_own_words_are_told():
    waiting, events = PENDING["image"]
    assert "authentication required, says the registry" in status(waiting, events=tuple(events)).why


def test_one_waiting_pod_of_a_gang_is_counted():
    told = status(pod("a"), pod("b", phase="Pending", unschedulable=NO_NODES))
    assert told.state == "pending"
    assert told.why.endswith("(1 of 2 pods wait)")


ADMISSION = {
    'pods "x" is forbidden: violates PodSecurity "restricted:latest"': "Pod Security|standard",
    'pods "x" is forbidden: error looking up service account ml/sdjob: serviceaccount "sdjob" not found': "service account",
    'pods "x" is forbidden: exceeded quota: team, requested: nvidia.com/gpu=1': "ResourceQuota",
    "Internal error occurred: failed calling webhook": "kubectl describe job",
}


@pytest.mark.parametrize("message", ADMISSION)
def test_a_job_that_gets_no_pod_at_all(message: str):
    told = status(events=(event("emoji", "FailedCreate", message),))
    assert (told.state, told.why) == ("pending", message)
    assert any(word in (told.next_step or "") for word in ADMISSION[message].split("|"))


def test_between_two_attempts():
    told = status(pod(phase="Failed", exit_code=137, disrupted="DeletionByTaintManager"))
    assert told.state == "pending"
    assert "preempted" in told.why
    assert status().why == "its first pod is being made"


def test_in_a_queue():
    entry = {
        "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "message": "insufficient unused quota for GPUs"}]}
    }
    told = status(workload=workload(suspend=True, queue="team"), queue_entry=entry)
    assert (told.state, told.why) == ("queued", "it waits in queue team: insufficient unused quota for GPUs")
    evicted = {
        "status": {"conditions": [{"type": "Evicted", "status": "True", "message": "Preempted to accommodate a workload"}]}
    }
    assert "Preempted" in status(workload=workload(suspend=True, queue="team"), queue_entry=evicted).why
    lost = status(workload=workload(suspend=True, queue="team"))
    assert "Is Kueue installed" in (lost.next_step or "")
    assert status(workload=workload(suspend=True)).state == "stopped"


@pytest.mark.parametrize(
    ("state", "written", "overrides"),
    [
        ("staging", (ledger(),), []),
        ("staging", (), []),
        ("staging", (ledger(host="an-older-pod", steps=3),), []),
        ("caching", (ledger({"kind": "encode"}),), []),
        ("staging", (ledger({"kind": "encode"}, {"kind": "encoded"}),), []),
        ("compiling", (ledger(READY),), ["train.backend=flax"]),
        ("training", (ledger(READY),), []),
        ("training", (ledger(READY, steps=40),), []),
        ("saving", (ledger(READY, steps=100),), []),
        ("publishing", (ledger(READY, {"kind": "commit", "step": 100}, steps=100),), []),
    ],
)
def test_what_a_running_pod_does(state: str, written: tuple, overrides: list[str]):
    assert status(pod(), ledgers=written, job=job(*overrides)).state == state


def test_progress_is_told():
    told = status(pod(), ledgers=(ledger(READY, {"kind": "commit", "step": 30}, steps=40),))
    assert told.activity
    assert (told.activity.step, told.activity.total_steps, told.activity.committed_step) == (40, 100, 30)
    assert told.activity.seconds_left == 120
    assert "  step 30 is committed, 0:01:35 ago" in lines(told, now_s=1100.0)
    assert "step 40 of 100, loss 0.5000, 8.0 images/s, 0:02:00 left" in "\n".join(lines(told, now_s=1100.0))


def test_a_ledger_out_of_reach_is_no_failure():
    told = status(pod(), note="the ledger could not be read: no credentials")
    assert (told.state, told.notes) == ("running", ["the ledger could not be read: no credentials"])


def test_a_pod_that_is_being_taken_away_saves():
    leaving = pod()
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z"
    assert status(leaving, ledgers=(ledger(READY, steps=5),)).state == "saving"


def test_a_job_that_is_being_cancelled():
    leaving = workload()
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z"
    assert status(pod(), workload=leaving).state == "stopped"


def test_steps_of_a_job_in_epochs_are_known_from_its_ledger():
    epochs = job("train={method: lora, epochs: 2}")
    events = [{"kind": "start", "host": NAME, "time_s": 1.0}, {"kind": "train", "total_steps": 64, "time_s": 2.0}]
    ledger = AttemptLedger(attempt=1, events=events, metrics=[{"step": 16, "step_s": 2.0, "time_s": 3.0}])
    told = status(pod(), ledgers=(ledger,), job=epochs)
    assert told.activity
    assert (told.activity.total_steps, told.activity.seconds_left) == (64, 96.0)


def test_the_table_of_attempts():
    told = status(
        pod("a", phase="Failed", exit_code=137, disrupted="DeletionByTaintManager"),
        pod("c"),
        ledgers=(
            ledger(READY, {"kind": "commit", "step": 30}, steps=37, attempt=1, host="a"),
            ledger(READY, steps=5, attempt=2, host="b"),
            ledger(READY, {"kind": "commit", "step": 50}, steps=55, attempt=3, host="c"),
        ),
    )
    first, second, third = told.attempts
    assert (first.gained, first.lost, first.cause.partition(":")[0]) == (30, 7, "preempted")
    assert (second.gained, second.lost, second.cause) == (0, 0, "lost without a word")
    assert (third.gained, third.lost, third.cause) == (20, 0, "running")
    assert lines(told, now_s=1100.0)[-4].split() == ["attempt", "started", "ran", "gained", "lost", "how", "it", "ended"]


# ---- with a server ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_status_joins_the_cluster_and_the_ledger(
    mock: ApiServer,
    server: Server,
    clock: FakeClock,
    store: LocalStore,
    capsys: pytest.CaptureFixture[str],
):
    submitted(server, mock, clock)
    writer = LedgerWriter(store, attempt=1, clock=clock)
    writer.event("start", host=NAME)
    writer.event("ready")
    writer.metrics(7, loss=0.25, step_s=1.0, images_per_s=4.0)
    writer.flush()
    assert main(["status", "emoji", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["activity"]["step"], told["attempts"][0]["cause"]) == ("training", 7, "running")
    assert main(["status", "emoji"]) == 0
    assert capsys.readouterr().out.startswith("emoji: training\n")


def test_a_job_of_another_version_has_a_state_all_the_same(mock: ApiServer, server: Server, clock: FakeClock):
    submitted(server, mock, clock)
    (held,) = [thing for path, thing in mock.state.items() if "/configmaps/" in path]
    held["data"]["job.yaml"] += "newer: field\n"
    told = judge(look("emoji", server=server, job=None))
    assert told.state == "running"
    assert "of another version" in told.notes[0]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_cluster_that_does_not_answer_says_nothing_of_the_job(mock: ApiServer, capsys: pytest.CaptureFixture[str]):
    mock.faults = [Fault("GET", "", 503, times=99)]
    assert main(["status", "emoji"]) == 74
    told = capsys.readouterr()
    assert "failed" not in told.out + told.err
    assert "the API server is not well" in told.err


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_no_such_job(mock: ApiServer, capsys: pytest.CaptureFixture[str]):
    assert main(["status", "emoji"]) == 66
    assert "there is no such job in namespace ml" in capsys.readouterr().err

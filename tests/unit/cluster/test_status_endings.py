"""How pods and jobs end, who is guilty of it, and what a person does next."""

import pytest

from fakes.cluster_objects import pod, workload
from sdjob.cluster.endings import ending_of, last_words
from unit.cluster.judged import READY, ledger, status

# ---- ended -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "kind"),
    [
        (pod(phase="Succeeded", exit_code=0, reason="Completed"), "done"),
        (pod(phase="Failed", exit_code=137, disrupted="DeletionByTaintManager"), "preempted"),
        (pod(phase="Failed", exit_code=137, reason="OOMKilled", disrupted="TerminationByKubelet"), "preempted"),
        (pod(phase="Failed", exit_code=64, disrupted="EvictionByEvictionAPI"), "preempted"),
        (pod(phase="Failed", disrupted="DeletionByPodGC"), "preempted"),
        (pod(phase="Failed", exit_code=137, reason="OOMKilled"), "out of memory"),
        (pod(phase="Failed", exit_code=137), "killed"),
        (pod(phase="Failed", exit_code=143), "killed"),
        (pod(phase="Failed", exit_code=75), "stopped"),
        (pod(phase="Failed", exit_code=78), "failed"),
        (pod(phase="Failed"), "gone"),
    ],
)
def test_how_a_pod_ended(ended: dict, kind: str):
    ending = ending_of(ended)
    assert ending
    assert ending.kind == kind


def test_what_has_not_ended_has_no_ending():
    assert ending_of(pod()) is None
    assert ending_of(pod(phase="Pending", unschedulable="")) is None
    assert ending_of(pod(disrupted="DeletionByTaintManager")) is None  # it saves


FAILED = workload(condition="Failed", reason="PodFailurePolicy", message="Container sdjob failed")


@pytest.mark.parametrize("code", [64, 65, 66, 69, 76, 77, 78, 79])
def test_each_final_exit_code_has_its_next_step(code: int):
    told = status(pod(phase="Failed", exit_code=code, message="the sentence it ended with"), workload=FAILED)
    assert (told.state, told.exit_code) == ("failed", code)
    assert told.why.endswith(": the sentence it ended with")
    assert told.next_step


def test_between_two_attempts_the_last_one_s_sentence_is_told():
    told = status(pod(phase="Failed", exit_code=74, message="s3://b/runs: the store does not answer."))
    assert told.state == "pending"
    assert told.why.endswith("the next one is being made. It said: s3://b/runs: the store does not answer.")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('{"time": 1.0, "event": "step", "message": "step 1"}\n{"time": 2.0, "event": "step", "message": "step 2"}', "step 2"),
        ('cut", "loss": 1}\n{"time": 2.0, "event": "step", "message": "step 2"}\n', "step 2"),
        ('{"time": 2.0, "event": "st', None),
        ('{"time": 2.0}', None),
        ("two\nlines", "two\nlines"),
        ("", None),
    ],
    ids=["its log", "a log cut at its start", "half a line", "no message", "a sentence", "nothing"],
)
def test_the_end_of_a_log_is_told_as_its_last_sentence(message: str, said: str | None):
    """Where a container was killed before it left a sentence, Kubernetes gives the log's last lines instead."""
    assert last_words(pod(phase="Failed", exit_code=137, message=message)) == said


def test_out_of_memory_wants_more_memory():
    out = workload(condition="Failed", reason="BackoffLimitExceeded")
    told = status(pod(phase="Failed", exit_code=137, reason="OOMKilled"), workload=out)
    assert told.state == "failed"
    assert "OOMKilled), several times" in told.why
    assert "memory_gib" in (told.next_step or "")


def test_a_gang_s_culprit_is_not_the_peer_that_lost_it():
    told = status(
        pod("a", phase="Failed", exit_code=78, created="2026-01-01T00:00:01Z"),
        pod("b", phase="Failed", exit_code=71, created="2026-01-01T00:00:02Z"),
        workload=FAILED,
    )
    assert told.exit_code == 78


def test_a_deadline_is_told_apart():
    told = status(pod(phase="Failed", exit_code=143), workload=workload(condition="Failed", reason="DeadlineExceeded"))
    assert "deadline_hours" in told.why


@pytest.mark.parametrize("condition", ["Complete", "Completed"])
def test_done(condition: str):
    assert status(workload=workload(condition=condition)).state == "done"


def test_what_is_no_longer_in_the_cluster():
    assert status(workload=None, ledgers=(ledger({"kind": "end", "exit_code": 0, "why": "done"}),)).state == "done"
    gone = status(workload=None, ledgers=(ledger(READY, steps=3),))
    assert gone.state == "stopped"
    assert "goes on from there" in (gone.next_step or "")

"""Several nodes train as one: each has an `sdjob run` and scratch of its own, as machines that share nothing but the bucket."""

import shutil
import signal

import pytest

from fakes.flax_gang import QUICK
from fakes.gangs import Nodes
from fakes.running import Job, Workshop

STEPS = 24
FIELDS = {"train__steps": STEPS, "train__global_batch": 4, "checkpoint__every_steps": 3, "run__notice_s": 60}
ONE_NODE = {**FIELDS, "run__accelerator": "cpu:2"}
TWO_NODES = {**FIELDS, "run__accelerator": "cpu:1", "run__nodes": 2}


@pytest.fixture
def nodes(workshop: Workshop, tmp_path):
    return Nodes(workshop.job(tmp_path / "job", **TWO_NODES))


def straight(workshop: Workshop) -> Job:
    return workshop.finished("gang", environment={"SDJOB_ISA": "avx2"}, **ONE_NODE)  # as nodes, whose CPUs may differ


def codes(ended):
    return [node.code for node in ended]


def check_as_straight(job: Job, workshop: Workshop) -> None:
    wanted = straight(workshop)
    assert job.done_digest() == wanted.done_digest()
    assert job.published() == wanted.published()
    job.verified()


def test_two_nodes_of_one_device_train_what_one_node_of_two_does(workshop, nodes):
    first, second = nodes.run()
    assert codes([first, second]) == [0, 0], first.output + second.output
    check_as_straight(nodes.job, workshop)
    assert nodes.job.losses() == straight(workshop).losses()
    [claim] = nodes.job.history().claims
    assert [ledger.attempt for ledger in nodes.job.ledgers()] == [claim.epoch], "only node 0 has a claim and a ledger"
    assert not second.committed
    # On a busy machine a save may be due while the one before it is on its way.
    assert {3, STEPS} <= {*first.committed} <= {*range(3, STEPS + 1, 3)}

    again = nodes.run()
    assert codes(again) == [0, 0], "a run that is done needs no gang"
    assert "nothing is left to do" in again[1].one("done")["message"]


def test_a_stop_request_to_one_node_stops_all_after_the_same_step(nodes):
    first, second = nodes.start_all("train.steps=1000")
    second.wait_for("train")
    first.wait_for("commit")
    second.signal(signal.SIGTERM)
    ended = [first.end(), second.end()]
    assert codes(ended) == [75, 75], ended[0].output + ended[1].output
    stopped = max(nodes.job.committed_steps())
    assert ended[0].committed[-1] == stopped
    assert f"step {stopped} is committed" in ended[0].error
    nodes.job.verified()

    # It goes on from there, and dies: the other sees the first node go as it saw the second.
    first, second = nodes.start_all("train.steps=1000")
    assert first.wait_for("train")["start_step"] == second.wait_for("train")["start_step"] == stopped
    first.wait_for("commit")
    first.kill()
    ended = second.end()
    assert ended.code == 71, ended.output
    assert "node 0 is gone without a word" in ended.error
    nodes.job.verified()


def test_a_gang_that_lost_a_node_ends_as_one_that_did_not(workshop, nodes):
    first, second = nodes.start_all()
    first.wait_for("commit", step=3)
    second.kill()
    ended = first.end()
    assert ended.code == 71, ended.output
    assert "node 1 is gone without a word" in ended.error
    assert max(nodes.job.committed_steps()) < STEPS
    again = nodes.run()
    assert codes(again) == [0, 0], again[0].output + again[1].output
    assert again[0].start_step == again[1].start_step > 0
    check_as_straight(nodes.job, workshop)


@pytest.mark.parametrize(
    "reads_them",
    [
        pytest.param("train.cache=never", id="at every step"),
        # The pictures' own shard is node 0's, that of their mirror images is node 1's.
        pytest.param("data.flip=true", id="once"),
    ],
)
def test_a_node_with_other_pictures_ends_with_its_own_code_and_the_others_with_71(workshop, nodes, reads_them):
    pictures = nodes.job.folder / "other-pictures"
    shutil.copytree(workshop.pictures, pictures)
    names = sorted(pictures.glob("*.png"))
    names[0].write_bytes(names[1].read_bytes())
    first, second = nodes.start(0, reads_them), nodes.start(1, reads_them, f"data.source={pictures}")
    culprit, victim = second.end(), first.end()
    assert culprit.code == 65, culprit.output
    assert victim.code == 71, victim.output
    assert "node 1 ended with exit code 65" in victim.error
    assert names[0].name in victim.error


def test_a_node_that_was_given_another_job_is_refused(nodes):
    first = nodes.start(0)
    refused = nodes.start(1, "train.seed=7").end()
    assert refused.code == 64, refused.output
    assert "node 1 was given another job than node 0" in refused.error
    first.signal(signal.SIGTERM)
    assert first.end().code == 75


def test_a_node_that_never_comes_is_named_and_nobody_is_fenced(nodes):
    ended = nodes.start(0, environment={"SDJOB_GANG_WAIT_S": "0.5"}).end()
    assert ended.code == 71, ended.output
    assert "node 1 did not come within 0.5 s" in ended.error
    assert nodes.job.history().claims == ()
    alone = nodes.start(1, environment={"SDJOB_GANG_WAIT_S": "0.5"}).end()
    assert alone.code == 71, alone.output
    assert f"{nodes.address}: no node 0 answered within 0.5 s" in alone.error


def test_without_its_variables_a_node_is_told_what_to_set(nodes):
    ended = nodes.job.run()
    assert ended.code == 64, ended.output
    assert "SDJOB_GANG_ADDRESS=HOST:PORT" in ended.error


def test_nodes_on_flax_train_as_one(workshop, tmp_path):
    """Of two virtual devices each, against torch on one node."""
    fields = {**TWO_NODES, "train__backend": "flax", "run__accelerator": "cpu:2"}
    nodes = Nodes(workshop.job(tmp_path / "job", **fields), environment=QUICK)
    first, second = nodes.run()
    assert codes([first, second]) == [0, 0], first.output + second.output
    assert nodes.job.losses() == pytest.approx(straight(workshop).losses(), rel=1e-3)
    [ready] = [event for event in nodes.job.ledgers()[-1].events if event["kind"] == "ready"]
    assert (ready["fingerprint"]["devices"], ready["fingerprint"]["hosts"]) == (4, 2)
    assert not second.committed
    nodes.job.verified()

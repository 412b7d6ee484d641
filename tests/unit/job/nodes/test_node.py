"""Which machine of a gang this is, from the environment."""

import pytest

from sdjob.core.errors import UsageError
from sdjob.job.nodes.node import ALONE, node_here
from sdjob.spec.hardware import parse_accelerator
from unit.spec.jobs import job

GANG = {"SDJOB_GANG_ADDRESS": "first.gang:29500", "SDJOB_GANG_NODES": "3", "SDJOB_GANG_NODE": "2"}
THREE = ("run.accelerator=nvidia-l4", "run.nodes=3")


def here(*overrides, **environment):
    asked = job(*(overrides or THREE))
    return node_here(asked, accelerator=parse_accelerator(asked.run.accelerator), environment=environment)


def test_a_node_of_three():
    node = here(**GANG)
    assert (node.number, node.count, node.host, node.port) == (2, 3, "first.gang", 29500)
    assert (node.address, node.is_first, node.is_alone) == ("first.gang:29500", False, False)
    assert (node.wait_s, node.grace_s) == (600, 30)


def test_one_machine_needs_no_words():
    assert here("run.accelerator=nvidia-l4:4") == ALONE
    assert here("run.accelerator='tpu-v5e:2x2'", "train.backend=flax") == ALONE
    assert ALONE.is_alone
    assert ALONE.is_first


def test_the_machines_of_a_tpu_slice_count():
    slice_of_four = ("run.accelerator='tpu-v5e:4x4'", "train.backend=flax")
    assert here(*slice_of_four, **{**GANG, "SDJOB_GANG_NODES": "4", "SDJOB_GANG_NODE": "0"}).is_first
    with pytest.raises(UsageError, match=r"run.accelerator: the job needs 4 machines"):
        here(*slice_of_four)


def test_an_address_of_ipv6():
    node = here(**{**GANG, "SDJOB_GANG_ADDRESS": "[fd00::1]:29500"})
    assert (node.host, node.port, node.address) == ("fd00::1", 29500, "[fd00::1]:29500")


def test_times_can_be_given():
    node = here(**GANG, SDJOB_GANG_WAIT_S="7.5", SDJOB_GANG_GRACE_S="0")
    assert (node.wait_s, node.grace_s) == (7.5, 0)


@pytest.mark.parametrize("name", list(GANG))
def test_a_variable_that_is_missing_is_named_with_what_to_set(name):
    with pytest.raises(UsageError) as caught:
        here(**{**GANG, name: ""})
    assert caught.value.where == "run.nodes"
    assert f"does not stand in {name}." in caught.value.what
    assert "SDJOB_GANG_NODES=3 and SDJOB_GANG_NODE=0 to 2" in (caught.value.next_step or "")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SDJOB_GANG_NODES", "2", "is 2, and the job needs 3 machines"),
        ("SDJOB_GANG_NODES", "three", "must be a whole number, not 'three'"),
        ("SDJOB_GANG_NODE", "3", "the 3 nodes are numbered 0 to 2"),
        ("SDJOB_GANG_NODE", "-1", "must be a whole number"),
        ("SDJOB_GANG_NODE", "²", "must be a whole number"),
        ("SDJOB_GANG_ADDRESS", "first.gang", "must be HOST:PORT"),
        ("SDJOB_GANG_ADDRESS", ":29500", "must be HOST:PORT"),
        ("SDJOB_GANG_ADDRESS", "first.gang:70000", "must be HOST:PORT"),
        ("SDJOB_GANG_WAIT_S", "soon", "must be a number of seconds"),
        ("SDJOB_GANG_GRACE_S", "nan", "must be a number of seconds"),
        ("SDJOB_GANG_GRACE_S", "-1", "must be a number of seconds"),
    ],
)
def test_a_wrong_value_is_named(name, value, words):
    with pytest.raises(UsageError, match=words) as caught:
        here(**{**GANG, name: value})
    assert caught.value.where == name


def test_a_job_of_one_node_is_not_started_twice_by_mistake():
    with pytest.raises(UsageError, match="is 3, and the job needs 1 machine") as caught:
        here("run.accelerator=nvidia-l4", **GANG)
    assert "run.nodes to what there is" in (caught.value.next_step or "")

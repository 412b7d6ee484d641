"""A collective that fails: whose fault it is."""

import pytest
import torch

from sdjob.core.errors import PeerLostError
from sdjob.train_torch.ranks import num_machines, peers_answer

CLOSED = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.7]:4242\n more"


def ranks(patch, *, of, here):
    patch.setenv("WORLD_SIZE", str(of))
    patch.setenv("LOCAL_WORLD_SIZE", str(here))


def test_among_several_machines_it_is_a_lost_peer(monkeypatch):
    ranks(monkeypatch, of=4, here=2)
    with (
        pytest.raises(PeerLostError, match=r"another machine does not answer: .*Connection closed by peer") as caught,
        peers_answer(),
    ):
        raise RuntimeError(CLOSED)
    assert "more" not in str(caught.value)


def test_on_one_machine_the_parent_sees_who_it_was(monkeypatch):
    ranks(monkeypatch, of=2, here=2)
    with pytest.raises(RuntimeError, match="Connection closed") as caught, peers_answer():
        raise RuntimeError(CLOSED)
    assert not isinstance(caught.value, PeerLostError)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), ValueError("a bug")])
def test_another_failure_is_its_own(monkeypatch, error):
    ranks(monkeypatch, of=2, here=1)
    with pytest.raises(type(error)) as caught, peers_answer():
        raise error
    assert caught.value is error


def test_the_number_of_machines():
    assert num_machines({}) == 1
    assert num_machines({"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}) == 3

"""Encoders that run once train as those that run at every step, and are gone from memory meanwhile."""

from dataclasses import replace

import pytest

from fakes.encoding_once import HeardLink, encoded, no_encoder, shards_of, training_task
from fakes.torch_runs import make_trainer
from sdjob.train_torch.batches import build_batches
from sdjob.train_torch.once import TorchEncoder, encodings_of


def losses(task, *, encodings=None):
    trainer = make_trainer(task)
    with build_batches(task, trainer=trainer, encodings=encodings) as batches:
        pending = [trainer.step(batch, step=step, stop_wanted=False) for step, batch in enumerate(batches)]
    return [result.read().loss for result in pending]


@pytest.fixture
def task(sd1, tmp_path):
    return training_task(sd1, tmp_path)


@pytest.mark.parametrize(("precision", "rounding"), [("fp32", 1e-5), ("bf16", 1e-2)])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_loss_is_that_of_encoding_at_every_step(request, tmp_path, family, precision, rounding):
    task = training_task(request.getfixturevalue(family), tmp_path, precision=precision)
    expected = losses(task)
    cached, encodings, computed = encoded(task, encodings_of, shards=shards_of(task, machine=tmp_path / "machine"))
    assert len(computed) == 3
    assert losses(cached, encodings=encodings) == pytest.approx(expected, rel=rounding)
    assert len(set(expected)) == len(expected) == 4


def test_encoders_are_not_there_while_it_trains(task, tmp_path):
    cached, encodings, _ = encoded(task, encodings_of, shards=shards_of(task, machine=tmp_path / "machine"))
    trainer = make_trainer(cached)
    models = trainer.runner.models
    assert (models.vae, models.text.parts) == (None, {})
    with build_batches(cached, trainer=trainer, encodings=encodings) as batches:
        micro = next(batches)[0]
    assert {**micro.pictures, **micro.captions}.keys() == {"mean_BCHW", "log_variance_BCHW", "states_BTD"}
    assert micro.pictures["mean_BCHW"].shape == (2, 4, 8, 8)


def test_a_job_with_another_learning_rate_calls_no_encoder(task, sd1, tmp_path, monkeypatch):
    machine = tmp_path / "machine"
    encoded(task, encodings_of, shards=shards_of(task, machine=machine))
    other = training_task(sd1, tmp_path, optimizer={"learning_rate": 0.5}, seed=4)
    with no_encoder(monkeypatch, TorchEncoder):
        _, _, computed = encoded(other, encodings_of, shards=shards_of(other, machine=machine, attempt=2))
    assert computed == []


def test_two_processes_share_the_work(task, tmp_path, monkeypatch):
    alone = shards_of(task, machine=tmp_path / "alone")
    encoded(task, encodings_of, shards=alone)
    pair = shards_of(task, machine=tmp_path / "pair")
    encode = pair.bring(num_processes=2)
    counts = []
    for rank in (1, 0):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        link = HeardLink(pair)
        monkeypatch.setattr("sdjob.encodings.work.Pass.wait", lambda self: None)
        encodings_of(replace(task, encode=encode, scratch=pair.attempt), link=link)
        counts.append(len(link.computed))
    pair.finish()
    assert counts == [1, 2]
    assert {p.name: p.read_bytes() for p in pair.folder.iterdir()} == {p.name: p.read_bytes() for p in alone.folder.iterdir()}

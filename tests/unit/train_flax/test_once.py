"""Encoders that run once on flax: the same losses, none on the device meanwhile, and the torch trainer's work is taken over."""

import jax
import numpy as np
import pytest

from fakes import flax_parity  # noqa: F401 - binds jax to the CPU
from fakes.encoding_once import encoded, no_encoder, shards_of, training_task
from fakes.flax_runs import make_flax_trainer
from fakes.tiny_models import write_tiny_model
from sdjob.data.buckets import TargetSize
from sdjob.encodings.reader import read_table
from sdjob.encodings.shard import mapped_shard
from sdjob.train_flax.batches import build_batches
from sdjob.train_flax.once import FlaxEncoder, encodings_of
from sdjob.train_torch.once import encodings_of as torch_encodings_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sd1"
    write_tiny_model(folder, family="sd1")
    return folder


@pytest.fixture
def task(model, tmp_path):
    return training_task(model, tmp_path)


def losses(task, *, encodings=None):
    trainer = make_flax_trainer(task)
    with build_batches(task, trainer=trainer, encodings=encodings) as batches:
        pending = [trainer.step(batch, step=step, stop_wanted=False) for step, batch in enumerate(batches)]
    return [result.read().loss for result in pending]


def test_the_loss_is_that_of_encoding_at_every_step_whoever_encoded(task, tmp_path, monkeypatch):
    expected = losses(task)
    cached, encodings, computed = encoded(task, encodings_of, shards=shards_of(task, machine=tmp_path / "flax"))
    assert len(computed) == 3
    assert losses(cached, encodings=encodings) == pytest.approx(expected, rel=1e-5)
    assert len(set(expected)) == len(expected) == 4

    by_torch = shards_of(task, machine=tmp_path / "torch")
    encoded(task, torch_encodings_of, shards=by_torch)
    with no_encoder(monkeypatch, FlaxEncoder):
        relayed = shards_of(task, machine=tmp_path / "torch", attempt=2)
        cached, encodings, computed = encoded(task, encodings_of, shards=relayed)
    assert computed == []
    assert read_table(relayed.table) == read_table(by_torch.table)
    assert losses(cached, encodings=encodings) == pytest.approx(expected, rel=1e-5)


def test_encoders_are_not_there_while_it_trains(task, tmp_path):
    cached, encodings, _ = encoded(task, encodings_of, shards=shards_of(task, machine=tmp_path / "machine"))
    trainer = make_flax_trainer(cached)
    assert (trainer.runner.plan.vae, trainer.runner.plan.text) == (None, ())
    assert not jax.tree.leaves((trainer.runner.frozen.vae, trainer.runner.frozen.text))
    with build_batches(cached, trainer=trainer, encodings=encodings) as batches:
        batch = next(batches)
    assert {**batch.pictures, **batch.captions}.keys() == {"mean_MBHWC", "log_variance_MBHWC", "states_MBTD"}
    assert batch.pictures["mean_MBHWC"].shape == (2, 2, 8, 8, 4)


def test_bf16_is_kept_as_it_was_computed(model, tmp_path):
    found = {}
    for precision, dtype in {"fp32": "F32", "bf16": "BF16"}.items():
        task = training_task(model, tmp_path, precision=precision)
        shards = shards_of(task, machine=tmp_path / precision)
        _, encodings, _ = encoded(task, encodings_of, shards=shards)
        rows = [rows for path in shards.folder.iterdir() for rows in mapped_shard(path).values()]
        assert {row.dtype for row in rows} == {dtype}
        found[precision] = encodings
    for number in range(10):
        exact, rounded = (
            found[precision].picture(number, target=TargetSize(64, 64), flipped=True)["mean_CHW"]
            for precision in ("fp32", "bf16")
        )
        assert rounded == pytest.approx(exact, abs=0.05)
        assert not np.array_equal(rounded, exact)

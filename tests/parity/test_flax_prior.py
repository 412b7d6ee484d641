"""Prior preservation: the loss of DreamBooth's paper and of diffusers' script, the same on torch and flax."""

from dataclasses import fields, replace

import jax
import numpy as np
import pytest
import torch

from fakes.data_tasks import make_data_task
from fakes.flax_runs import in_flax, make_flax_trainer
from fakes.torch_runs import make_trainer
from sdjob.train_flax.batches import build_batches
from sdjob.train_flax.step import stacked
from sdjob.train_torch.batches import build_batches as build_torch_batches
from sdjob.train_torch.step import loss_of

WEIGHT, STEPS = 0.3, 3


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    data = {"flip": True, "prior": {"source": "prior", "caption": "a shape", "weight": WEIGHT}}
    train = {"global_batch": 2, "loss": {"snr_gamma": 5.0}}
    return make_data_task(tmp_path_factory.mktemp("task"), data=data, train=train, total_steps=STEPS)


@pytest.fixture(scope="module")
def torchs(task):
    """(trainer at its start, micro-batches of every step)"""
    trainer = make_trainer(task)
    with build_torch_batches(task, trainer=trainer) as made:
        return trainer, list(made)


def rows(micro, part):
    """A micro-batch of some rows."""
    draws = {f.name: getattr(micro, f.name)[part] for f in fields(micro) if f.name not in ("pictures", "captions")}
    given = ({name: values[part] for name, values in kind.items()} for kind in (micro.pictures, micro.captions))
    return type(micro)(*given, **draws)


def test_global_batch_counts_the_pictures_and_each_has_a_prior_picture_beside_it(task, torchs):
    trainer, steps = torchs
    for (micro,) in steps:
        captions = trainer.tokenizers.parts[0].batch_decode(micro.captions["ids_BET"][:, 0], skip_special_tokens=True)
        assert len(captions) == 4
        assert [caption.strip() == "a shape" for caption in captions] == [False, False, True, True]
    assert len({micro.noise_BCHW[row].numpy().tobytes() for (micro,) in steps for row in range(4)}) == 4 * STEPS


def test_the_loss_is_the_pictures_and_the_weighed_priors(torchs):
    trainer, steps = torchs
    models, (micro,) = trainer.runner.models, steps[0]
    plain = replace(micro, loss_weight_B=micro.loss_weight_B / torch.tensor([2.0, 2.0, 2 * WEIGHT, 2 * WEIGHT]))
    with torch.no_grad():
        own, prior = (loss_of(models, rows(plain, part)) for part in (slice(0, 2), slice(2, 4)))
        assert float(loss_of(models, micro)) == pytest.approx(float(own + WEIGHT * prior), rel=1e-5)


def test_flax_has_the_same_batches_and_losses(task, torchs):
    trainer, steps = torchs
    expected = [trainer.step(micros, step=step, stop_wanted=False).read().loss for step, micros in enumerate(steps)]
    ours = make_flax_trainer(task)
    with build_batches(task, trainer=ours) as batches:
        for step, batch in enumerate(batches):
            jax.tree.map(np.testing.assert_array_equal, batch, stacked([in_flax(micro) for micro in steps[step]]))
            loss = ours.step(batch, step=step, stop_wanted=False).read().loss
            assert loss == pytest.approx(expected[step], rel=1e-4)

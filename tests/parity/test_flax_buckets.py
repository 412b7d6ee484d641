"""Aspect-ratio buckets on flax: the batches and losses of torch, and nothing left to compile once the loop runs."""

from typing import Any

import jax
import numpy as np
import pytest

from fakes.data_tasks import BUCKETS, make_data_task
from fakes.flax_runs import in_flax, make_flax_trainer
from fakes.torch_runs import make_trainer
from sdjob.train_flax.batches import build_batches
from sdjob.train_flax.step import advance, shapes_of, stacked
from sdjob.train_torch.batches import build_batches as build_torch_batches

STEPS = 8


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    data = {**BUCKETS, "crop": "random", "flip": True, "caption_dropout": 0.3}
    return make_data_task(
        tmp_path_factory.mktemp("task"), data=data, num_pictures=14, total_steps=STEPS, train={"global_batch": 2}
    )


@pytest.fixture(scope="module")
def torchs(task):
    """(batches in flax's layout, losses) of the torch trainer."""
    trainer, batches, losses = make_trainer(task), [], []
    with build_torch_batches(task, trainer=trainer) as made:
        for step, micros in enumerate(made):
            batches.append(stacked([in_flax(micro) for micro in micros]))
            losses.append(trainer.step(micros, step=step, stop_wanted=False).read().loss)
    return batches, losses


def sizes_of(batches):
    return [batch.pictures["pixels_MBHWC"].shape[2:4] for batch in batches]


def num_compiled():
    """How often the step was compiled when it was first called."""
    compiled: Any = advance
    return compiled._cache_size()


def test_a_batch_has_one_size_and_its_draws_have_it_too(torchs):
    assert set(sizes_of(torchs[0])) == {(128, 64), (96, 96), (64, 128)}
    for batch in torchs[0]:
        height, width = batch.pictures["pixels_MBHWC"].shape[2:4]
        for drawn in (batch.noise_MBHWC, batch.input_noise_MBHWC, batch.posterior_MBHWC):
            assert drawn.shape == (1, 2, height // 8, width // 8, 4)


def test_the_same_batches_and_losses_with_one_compilation_a_size_ahead_of_the_loop(task, torchs):
    trainer, losses = make_flax_trainer(task), []
    compiled_before = num_compiled()
    with build_batches(task, trainer=trainer) as batches:
        assert len(trainer.runner.programs) == 3
        for step, (ours, theirs) in enumerate(zip(batches, torchs[0], strict=True)):
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)
            assert shapes_of(ours) in trainer.runner.programs
            losses.append(trainer.step(ours, step=step, stop_wanted=False).read().loss)
    assert num_compiled() == compiled_before
    assert losses == pytest.approx(torchs[1], rel=1e-4)

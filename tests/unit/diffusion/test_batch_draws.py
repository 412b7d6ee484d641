"""Prior rows: where they stand, what they weigh, and that they are drawn apart."""

import numpy as np
import pytest

from sdjob.diffusion.batch_draws import BatchDraws, with_prior
from sdjob.diffusion.draws import DrawPlan, draw
from sdjob.diffusion.schedule import NoiseSchedule

PLAN = DrawPlan(seed=1, schedule=NoiseSchedule(np.linspace(0.999, 0.005, 1000), "epsilon"), latent_shape=(4, 8, 8), snr_gamma=5.0)


def test_each_micro_step_has_its_prior_rows_behind_it():
    assert with_prior([0, 1, 4, 5], rows_of_micro=2, global_batch=8) == [0, 1, 8, 9, 4, 5, 12, 13]


def test_the_mean_over_all_rows_is_the_mean_plus_the_weighed_mean_of_the_prior():
    members = [0, 1, 8, 9]
    plain = draw(PLAN, step=3, indices=members).loss_weight_B
    weights = BatchDraws(PLAN, lambda step: (64, 64), 8, 0.25)(3, members).loss_weight_B
    errors = np.array([1.0, 2.0, 30.0, 40.0])
    mean = (errors * plain)[:2].mean() + 0.25 * (errors * plain)[2:].mean()
    assert (errors * weights).mean() == pytest.approx(mean)


def test_without_prior_nothing_is_weighed_anew():
    ours, theirs = BatchDraws(PLAN, lambda step: (64, 64), 8)(3, [0, 5]), draw(PLAN, step=3, indices=[0, 5])
    for name, values in vars(theirs).items():
        assert np.array_equal(getattr(ours, name), values)


def test_draws_have_the_size_of_the_steps_pictures():
    drawn = BatchDraws(PLAN, lambda step: (64 + 8 * step, 128), 8)(2, [0])
    assert drawn.noise_BCHW.shape == drawn.posterior_BCHW.shape == (1, 4, 10, 16)

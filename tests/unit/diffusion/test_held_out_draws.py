"""Noise that a held-out picture keeps, whatever the run."""

from dataclasses import replace

import numpy as np
import pytest

from sdjob.diffusion.draws import DrawPlan
from sdjob.diffusion.held_out_draws import HeldOutDraws, HeldOutKey
from sdjob.diffusion.schedule import NoiseSchedule

PLAN = DrawPlan(seed=1, schedule=NoiseSchedule(np.linspace(0.999, 0.005, 1000), "epsilon"), latent_shape=(4, 8, 8))
LEVELS = 4
KEYS = {0: HeldOutKey(2**64 - 1, 0, counts=True), 1: HeldOutKey(2**64 - 1, 3, counts=True), 2: HeldOutKey(5, 3, counts=False)}


def draws(plan: DrawPlan = PLAN, **changes: object) -> HeldOutDraws:
    return replace(HeldOutDraws(plan, lambda batch: (64, 64), lambda batch, row: KEYS[row], LEVELS), **changes)  # type: ignore[arg-type]


def test_levels_are_the_middles_of_equal_parts():
    keyed = replace(draws(), key=lambda batch, row: HeldOutKey(1, row, counts=True))
    assert keyed(0, range(LEVELS)).timesteps_B.tolist() == [125, 375, 625, 875]


def test_the_jobs_loss_and_seed_count_for_nothing():
    plain = draws()(0, [0, 1, 2])
    other = draws(replace(PLAN, seed=8, snr_gamma=1.0, noise_offset=0.3, input_perturbation=0.3))(7, [0, 1, 2])
    for name, values in vars(plain).items():
        assert np.array_equal(getattr(other, name), values), name
    assert plain.loss_weight_B.tolist() == [1.0, 1.0, 0.0]
    assert np.array_equal(plain.noise_BCHW, plain.input_noise_BCHW)


def test_each_picture_and_level_has_noise_of_its_own():
    drawn = draws()(0, [0, 1, 2])
    assert len({values.tobytes() for values in drawn.noise_BCHW}) == 3
    assert np.array_equal(drawn.posterior_BCHW[0], drawn.posterior_BCHW[1])
    assert not np.array_equal(drawn.posterior_BCHW[0], drawn.posterior_BCHW[2])
    assert np.array_equal(draws()(3, [2]).noise_BCHW[0], drawn.noise_BCHW[2]), "whatever stands beside it"


def test_signal_and_noise_are_the_schedules():
    drawn, alpha_bar = draws()(0, [1]), float(PLAN.schedule.alphas_cumprod[875])
    assert float(drawn.signal_B[0]) ** 2 == pytest.approx(alpha_bar, rel=1e-6)
    assert float(drawn.sigma_B[0]) ** 2 == pytest.approx(1 - alpha_bar, rel=1e-6)

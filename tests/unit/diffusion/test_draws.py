"""Draws are pure functions of (seed, step, index): never of the batch they are drawn in."""

import dataclasses

import numpy as np
import pytest

from sdjob.diffusion.draws import DrawPlan, draw, initial_latents, initial_lora_A
from sdjob.diffusion.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule(np.linspace(0.999, 0.005, 1000), "epsilon")
PLAN = DrawPlan(seed=7, schedule=SCHEDULE, latent_shape=(4, 8, 8))


def test_a_row_does_not_depend_on_its_neighbours():
    whole, part = draw(PLAN, step=3, indices=range(6)), draw(PLAN, step=3, indices=[4])
    for field in dataclasses.fields(whole):
        assert np.array_equal(getattr(whole, field.name)[4:5], getattr(part, field.name)), field.name


def test_other_seeds_steps_and_rows_draw_otherwise():
    noises = [
        draw(PLAN, step=3, indices=[0]),
        draw(PLAN, step=4, indices=[0]),
        draw(PLAN, step=3, indices=[1]),
        draw(dataclasses.replace(PLAN, seed=8), step=3, indices=[0]),
    ]
    assert len({n.noise_BCHW.tobytes() for n in noises} | {n.posterior_BCHW.tobytes() for n in noises}) == 8


def test_coefficients_follow_the_timestep():
    drawn = draw(PLAN, step=0, indices=range(64))
    alpha_bar = SCHEDULE.alphas_cumprod[drawn.timesteps_B]
    assert drawn.signal_B**2 == pytest.approx(alpha_bar, rel=1e-5)
    assert drawn.signal_B**2 + drawn.sigma_B**2 == pytest.approx(np.ones(64), rel=1e-6)
    assert len(set(drawn.timesteps_B.tolist())) > 50


def test_noise_is_standard_normal():
    noise = draw(PLAN, step=0, indices=range(200)).noise_BCHW
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1.0, abs=0.02)


def test_noise_offset_shifts_whole_channels():
    plain = draw(PLAN, step=1, indices=range(300)).noise_BCHW
    offset = draw(dataclasses.replace(PLAN, noise_offset=0.5), step=1, indices=range(300)).noise_BCHW
    shift = offset - plain
    assert shift == pytest.approx(np.broadcast_to(shift[:, :, :1, :1], shift.shape), abs=1e-5)
    assert shift[:, :, 0, 0].std() == pytest.approx(0.5, abs=0.05)


def test_input_perturbation_leaves_the_target_alone():
    drawn = draw(dataclasses.replace(PLAN, input_perturbation=0.1), step=1, indices=range(50))
    assert np.array_equal(drawn.noise_BCHW, draw(PLAN, step=1, indices=range(50)).noise_BCHW)
    assert (drawn.input_noise_BCHW - drawn.noise_BCHW).std() == pytest.approx(0.1, abs=0.005)


def test_initial_lora_has_pefts_distribution():
    drawn = initial_lora_A("unet.x.lora_A.weight", shape=(64, 100), seed=0)
    bound = 1 / np.sqrt(100)  # kaiming_uniform_, a = sqrt(5): sqrt(6 / (1 + 5) / fan_in)
    assert np.abs(drawn).max() <= bound
    assert drawn.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert not np.array_equal(drawn, initial_lora_A("unet.y.lora_A.weight", shape=(64, 100), seed=0))


def test_initial_latents_differ_by_prompt_and_picture():
    drawn = {initial_latents((4, 8, 8), seed=0, prompt=p, image=i).tobytes() for p in range(2) for i in range(2)}
    assert len(drawn) == 4

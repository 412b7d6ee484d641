"""Steps from noise to latents against diffusers' own schedulers, with a prediction that is a plain function."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from sdjob.core.errors import UsageError
from sdjob.train_flax.sampler import Sampler

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD1 = {"set_alpha_to_one": False, "steps_offset": 1}
PLMS = {**SD1, "skip_prk_steps": True}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
CASES = [
    (DDIMScheduler, {**SD1, "clip_sample": False}, 7),
    (DDIMScheduler, {}, 10),  # clips, ends at alpha-bar 1
    (DDIMScheduler, {**SD1, "clip_sample_range": 0.5, "prediction_type": "v_prediction"}, 4),
    (DDIMScheduler, {**ZERO_SNR, "clip_sample": False}, 5),
    (DDIMScheduler, {"timestep_spacing": "linspace", "clip_sample": False}, 6),
    (PNDMScheduler, PLMS, 1),
    (PNDMScheduler, PLMS, 2),
    (PNDMScheduler, PLMS, 9),
    (PNDMScheduler, {**PLMS, "prediction_type": "v_prediction"}, 6),
]


def model_with(scheduler, folder):
    scheduler.save_pretrained(folder / "scheduler")
    return folder


def predict(noisy, timestep):
    return np.sin(noisy * 2 + timestep / 300).astype(np.float32)


@pytest.mark.parametrize(("kind", "options", "num_steps"), CASES)
def test_as_diffusers_goes(kind, options, num_steps, tmp_path):
    scheduler = kind(**BETAS, **options)
    scheduler.set_timesteps(num_steps)
    noisy = np.random.default_rng(0).standard_normal((2, 4, 4, 3)).astype(np.float32)
    expected = torch.from_numpy(noisy)
    for timestep in scheduler.timesteps:
        predicted = torch.from_numpy(predict(expected.numpy(), int(timestep)))
        expected = scheduler.step(predicted, timestep, expected, return_dict=False)[0]
    drawn = Sampler.of(model_with(scheduler, tmp_path), num_steps=num_steps).draw(noisy, predict=predict)
    np.testing.assert_allclose(drawn, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (DDIMScheduler, {"thresholding": True}, "thresholding"),
        (PNDMScheduler, {"skip_prk_steps": False}, "skip_prk_steps"),
        (DDIMScheduler, {"rescale_betas_zero_snr": True}, "zero terminal SNR"),
    ],
)
def test_what_would_be_left_out_is_refused(kind, options, named, tmp_path):
    with pytest.raises(UsageError, match=named):
        Sampler.of(model_with(kind(**BETAS, **options), tmp_path), num_steps=5)


def test_more_steps_than_the_model_has(tmp_path):
    with pytest.raises(UsageError, match="1001 inference steps"):
        Sampler.of(model_with(DDIMScheduler(**BETAS), tmp_path), num_steps=1001)


def test_another_scheduler_is_drawn_by_ddim_unclipped(tmp_path):
    model = model_with(DDIMScheduler(**BETAS), tmp_path)
    path = model / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**BETAS, "num_train_timesteps": 1000, "_class_name": "EulerDiscreteScheduler"}))
    sampler = Sampler.of(model, num_steps=5)
    assert (sampler.clip, sampler.multistep) == (None, False)

"""The noise schedule against diffusers' own DDPMScheduler, and min-SNR weights against diffusers' compute_snr."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from sdjob.core.errors import UsageError
from sdjob.diffusion.schedule import NoiseSchedule, betas_of, read_schedule

CONFIGS = [
    {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02},
    {"trained_betas": [0.1, 0.2, 0.3]},
]


def written(tmp_path, config):
    folder = tmp_path / "scheduler"
    folder.mkdir()
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.get("beta_schedule", "trained"))
def test_alphas_are_those_of_diffusers(tmp_path, config, zero_snr):
    config = {"num_train_timesteps": 1000, **config, "rescale_betas_zero_snr": zero_snr}
    theirs = DDPMScheduler(**config).alphas_cumprod.numpy()
    ours = read_schedule(written(tmp_path, config)).alphas_cumprod
    assert ours == pytest.approx(theirs, rel=2e-4, abs=1e-7)  # theirs is a product of a thousand float32 factors


def test_unknown_beta_schedule_is_named():
    with pytest.raises(UsageError, match=r"'sigmoid'.*scaled_linear"):
        betas_of({"beta_schedule": "sigmoid", "beta_start": 0.1, "beta_end": 0.2, "num_train_timesteps": 10})


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_prediction_is_read_from_the_model_and_a_contradiction_refused(tmp_path, prediction):
    model = written(tmp_path, {"num_train_timesteps": 10, **CONFIGS[1], "prediction_type": prediction})
    other = "epsilon" if prediction == "v_prediction" else "v_prediction"
    assert read_schedule(model).prediction == prediction
    assert read_schedule(model, prediction=prediction).prediction == prediction
    with pytest.raises(UsageError, match=f"asks for {other}, but the model's scheduler says {prediction}"):
        read_schedule(model, prediction=other)


def test_a_model_that_predicts_the_sample_is_refused(tmp_path):
    with pytest.raises(UsageError, match="'sample'"):
        read_schedule(written(tmp_path, {"num_train_timesteps": 10, **CONFIGS[0], "prediction_type": "sample"}))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights(prediction):
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    snr = compute_snr(scheduler, torch.arange(1000)).numpy()
    divisor = snr + 1 if prediction == "v_prediction" else snr
    schedule = NoiseSchedule(scheduler.alphas_cumprod.double().numpy(), prediction)
    assert schedule.loss_weights(5.0) == pytest.approx(np.minimum(snr, 5.0) / divisor, rel=1e-4)
    assert (schedule.loss_weights(None) == 1.0).all()


def test_min_snr_at_zero_snr_is_finite():
    alphas = np.array([0.9, 0.5, 0.0])
    assert NoiseSchedule(alphas, "epsilon").loss_weights(5.0)[-1] == 1.0
    assert NoiseSchedule(alphas, "v_prediction").loss_weights(5.0)[-1] == 0.0

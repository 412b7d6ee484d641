"""The noise schedule against diffusers' own DDPMScheduler, and min-SNR weights against diffusers' compute_snr."""

import inspect
import json

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr

from sdjob.core.errors import UsageError
from sdjob.diffusion.schedule import ZERO_TERMINAL_SCHEDULERS, NoiseSchedule, betas_of, read_schedule, zero_terminal_config

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


def test_zero_terminal_snr_is_the_papers_and_diffusers(tmp_path):
    """Stable Diffusion's own betas (arXiv 2305.08891, table 1 and algorithm 1)."""
    config = {"num_train_timesteps": 1000, **CONFIGS[1], "prediction_type": "v_prediction", "_class_name": "DDIMScheduler"}
    betas = torch.tensor(betas_of(config))
    theirs = torch.cumprod(1.0 - rescale_zero_terminal_snr(betas), dim=0).numpy()
    plain = np.cumprod(1.0 - betas.numpy())
    ours = read_schedule(written(tmp_path, zero_terminal_config(config, where="x"))).alphas_cumprod
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-15)
    assert plain[-1] ** 0.5 == pytest.approx(0.068265, abs=1e-6)  # the paper: at the last step the signal is still 0.068265
    assert ours[-1] == 0.0
    assert ours[0] == pytest.approx(plain[0], rel=1e-12)


def test_zero_terminal_snr_is_sampled_by_trailing_timesteps():
    config = {"num_train_timesteps": 1000, **CONFIGS[1], "prediction_type": "v_prediction", "_class_name": "DDIMScheduler"}
    scheduler = DDIMScheduler.from_config(zero_terminal_config(config, where="x"))
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]  # the paper's, less its 1


@pytest.mark.parametrize("kind", ["PNDMScheduler", "DEISMultistepScheduler"])
def test_a_scheduler_without_zero_terminal_snr_becomes_ddim(kind):
    own = getattr(diffusers, kind)(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
    config = zero_terminal_config({**own.config, "_class_name": kind, "prediction_type": "v_prediction"}, where="x")
    made = DDIMScheduler.from_config(config)  # a key that it does not know would be a warning, and so an error here
    assert config["_class_name"] == "DDIMScheduler"
    assert made.alphas_cumprod[-1] == 0.0
    assert not made.config["clip_sample"]
    assert made.config["steps_offset"] == 1


def test_the_list_of_schedulers_with_zero_terminal_snr_is_right():
    for kind in ZERO_TERMINAL_SCHEDULERS:
        assert "rescale_betas_zero_snr" in inspect.signature(getattr(diffusers, kind)).parameters


def test_zero_terminal_snr_of_a_noise_prediction_is_refused():
    with pytest.raises(UsageError, match=r"the model predicts the noise.*v_prediction") as caught:
        zero_terminal_config({"num_train_timesteps": 10, **CONFIGS[0]}, where="train.loss.zero_terminal_snr")
    assert caught.value.where == "train.loss.zero_terminal_snr"


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

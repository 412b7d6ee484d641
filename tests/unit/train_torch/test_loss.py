"""The loss against the ancestor's own lines (diffusers, examples/text_to_image/train_text_to_image.py)."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr

from fakes.torch_runs import make_micro, make_task, make_trainer
from sdjob.train_torch.step import loss_of


def ancestors_loss(models, micro, *, model, snr_gamma):
    scheduler: Any = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
    timesteps = micro.timesteps_B
    posterior = models.vae.encode(micro.pictures["pixels_BCHW"]).latent_dist
    latents = (posterior.mean + posterior.std * micro.posterior_BCHW) * models.vae.config.scaling_factor
    noisy = scheduler.add_noise(latents, micro.input_noise_BCHW, timesteps)
    states = models.text.parts["text_encoder"](micro.captions["ids_BET"][:, 0], return_dict=False)[0]
    if scheduler.config.prediction_type == "epsilon":
        target = micro.noise_BCHW
    else:
        target = scheduler.get_velocity(latents, micro.noise_BCHW, timesteps)
    predicted = models.unet(noisy, timesteps, states, return_dict=False)[0]
    if snr_gamma is None:
        return F.mse_loss(predicted.float(), target.float(), reduction="mean")
    snr = compute_snr(scheduler, timesteps)
    weights = torch.stack([snr, snr_gamma * torch.ones_like(timesteps)], dim=1).min(dim=1)[0]
    weights = weights / snr if scheduler.config.prediction_type == "epsilon" else weights / (snr + 1)
    errors = F.mse_loss(predicted.float(), target.float(), reduction="none")
    return (errors.mean(dim=[1, 2, 3]) * weights).mean()


@pytest.mark.parametrize("family", ["sd1", "sd2"])
@pytest.mark.parametrize(
    "loss",
    [{}, {"snr_gamma": 0.5}, {"noise_offset": 0.1, "input_perturbation": 0.1, "snr_gamma": 1.0}],
    ids=["plain", "min-snr", "offset and perturbation"],
)
def test_loss_equals_the_ancestors(request, family, loss):
    model = request.getfixturevalue(family)
    task = make_task(model, train={"loss": loss})
    models = make_trainer(task).runner.models
    assert models.predicts_velocity == (family == "sd2")
    micro = make_micro(task, step=3, rows=range(6))
    with torch.no_grad():
        ours = loss_of(models, micro)
        theirs = ancestors_loss(models, micro, model=model, snr_gamma=loss.get("snr_gamma"))
    assert ours.dtype == torch.float32
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_every_term_of_the_loss_counts(sd1):
    """So that the comparison above could not pass by ignoring a term on both sides."""
    losses = set()
    for loss in ({}, {"snr_gamma": 0.5}, {"noise_offset": 0.1}, {"input_perturbation": 0.1}):
        task = make_task(sd1, train={"loss": loss})
        with torch.no_grad():
            losses.add(float(loss_of(make_trainer(task).runner.models, make_micro(task, step=3, rows=range(6)))))
    assert len(losses) == 4

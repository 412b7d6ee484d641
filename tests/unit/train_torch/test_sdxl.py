"""SDXL's conditioning against the ancestor's own lines (diffusers, examples/text_to_image/train_text_to_image_sdxl.py)."""

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from fakes.torch_runs import applied_gradients, make_micro, make_task, make_trainer
from sdjob.train_torch.conditioning import Tokenizers
from sdjob.train_torch.encode import encode_pictures
from sdjob.train_torch.step import loss_of


def encode_prompt(text, ids_BET):
    """The ancestor's."""
    states, pooled = [], torch.empty(0)
    for encoder, ids in zip(text.parts.values(), ids_BET.unbind(1), strict=True):
        outputs = encoder(ids, output_hidden_states=True, return_dict=False)
        pooled = outputs[0]
        hidden = outputs[-1][-2]
        states.append(hidden.view(len(ids), hidden.shape[1], -1))
    return torch.concat(states, dim=-1), pooled.view(len(ids_BET), -1)


def ancestors_loss(models, micro, *, model):
    scheduler: Any = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
    posterior = models.vae.encode(micro.pictures["pixels_BCHW"]).latent_dist
    latents = (posterior.mean + posterior.std * micro.posterior_BCHW) * models.vae.config.scaling_factor
    noisy = scheduler.add_noise(latents, micro.noise_BCHW, micro.timesteps_B)
    states, pooled = encode_prompt(models.text, micro.captions["ids_BET"])
    added = {"time_ids": micro.time_ids_B6, "text_embeds": pooled}
    predicted = models.unet(noisy, micro.timesteps_B, states, added_cond_kwargs=added, return_dict=False)[0]
    return F.mse_loss(predicted.float(), micro.noise_BCHW.float(), reduction="mean")


def spoken(micro, value=1.0):
    return replace(micro, captions={**micro.captions, "told_B": torch.full_like(micro.captions["told_B"], value)})


@torch.no_grad()
def test_loss_equals_the_ancestors(sdxl):
    task = make_task(sdxl)
    models, micro = make_trainer(task).runner.models, spoken(make_micro(task, step=3, rows=range(6)))
    ours = float(loss_of(models, micro))
    assert ours == pytest.approx(float(ancestors_loss(models, micro, model=sdxl)), rel=1e-5)
    swapped = {**micro.captions, "ids_BET": micro.captions["ids_BET"].flip(1)}
    for other in (replace(micro, time_ids_B6=micro.time_ids_B6 + 1), replace(micro, captions=swapped)):
        assert float(loss_of(models, other)) != pytest.approx(ours, rel=1e-6)


@torch.no_grad()
def test_an_empty_caption_is_what_the_pipeline_guides_away_from(sdxl, tmp_path):
    """Zeros where the model's index says so, as SDXL's does; else the states of no words."""
    other = tmp_path / "other"
    shutil.copytree(sdxl, other)
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "force_zeros_for_empty_prompt": False}))
    ids = Tokenizers.of(sdxl).ids(["a red circle", ""])
    for model, zeroes in ((sdxl, True), (other, False)):
        text = make_trainer(make_task(model)).runner.models.text
        found, (states, pooled) = text.encode(ids, told_B=torch.tensor([1.0, 0.0])), encode_prompt(text, ids)
        assert torch.equal(found["states_BTD"][0], states[0])
        assert torch.equal(found["pooled_BP"][0], pooled[0])
        assert torch.equal(found["states_BTD"][1], torch.zeros_like(states[1]) if zeroes else states[1])
        assert torch.equal(found["pooled_BP"][1], torch.zeros_like(pooled[1]) if zeroes else pooled[1])


@torch.no_grad()
@pytest.mark.parametrize(("upcast", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_the_vae_is_as_wide_as_its_configuration_asks(sdxl, tmp_path, upcast, dtype):
    model = tmp_path / "model"
    shutil.copytree(sdxl, model)
    config = json.loads((model / "vae" / "config.json").read_text())
    (model / "vae" / "config.json").write_text(json.dumps({**config, "force_upcast": upcast}))
    task = make_task(model, train={"precision": "bf16"})
    runner = make_trainer(task).runner
    assert runner.models.vae.dtype == dtype
    micro = make_micro(task, step=0, rows=range(2))
    wide = make_trainer(make_task(model)).runner.models.vae
    exact = encode_pictures(wide, micro.pictures["pixels_BCHW"])
    with runner.accelerator.autocast():
        found = encode_pictures(runner.models.vae, micro.pictures["pixels_BCHW"])
    assert all(torch.equal(found[name], values) == upcast for name, values in exact.items())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_trained_parameter_has_a_gradient(sdxl, method):
    task = make_task(sdxl, method=method)
    runner = make_trainer(task).runner
    gradients = applied_gradients(runner, [make_micro(task, step=0, rows=range(2))])
    assert gradients.keys() == runner.state.parameters.keys()
    assert {name.partition(".")[0] for name in gradients} == {"unet"}
    assert all(not p.requires_grad for e in runner.models.text.parts.values() for p in e.parameters())

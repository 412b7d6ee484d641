"""Text encoders that learn, against the lines of diffusers' examples that train them (examples/dreambooth, both scripts)."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from peft import LoraConfig
from transformers import CLIPTextModel

from fakes.checkpoints import write_checkpoint
from fakes.torch_runs import applied_gradients, make_micro, make_task, make_trainer, norm_of, randomize
from sdjob.diffusion.text_encoders import spelled
from sdjob.job.weights import build_published
from sdjob.spec.train import LoraSpec

METHODS = ["lora", "full"]
OPTIMIZER = {"learning_rate": 1e-3, "epsilon": 1e-6, "weight_decay": 0.1, "max_grad_norm": 0.01}
# As in SDXL the UNet sees the first encoder's states before its last layer.
UNSEEN = ("text_encoder.text_model.encoder.layers.2.", "text_encoder.text_model.final_layer_norm.")


def started(model, *, method, **train):
    """LoRA's B is not zero, so that every parameter has a gradient."""
    trainer = make_trainer(make_task(model, method=method, train={"text_encoder": method, **train}))
    if method == "lora":
        randomize(trainer.runner.state.parameters.values())
    return trainer.task, trainer.runner


class Ancestor:
    """What the examples make of a model: both parts, with adapters or whole, their parameters in one list."""

    def __init__(self, model, *, method):
        self.scheduler: Any = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
        self.vae = AutoencoderKL.from_pretrained(model, subfolder="vae").eval()
        self.unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet").train()
        self.text_encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder").train()
        if method == "lora":
            targets = {"unet": list(LoraSpec().targets), "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj"]}
            for part, names in targets.items():
                getattr(self, part).requires_grad_(False)
                getattr(self, part).add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=names))

    def parameters(self):
        """By our names."""
        unet = {f"unet.{name}": p for name, p in self.unet.named_parameters() if p.requires_grad}
        text = {f"text_encoder.{spelled(name)}": p for name, p in self.text_encoder.named_parameters() if p.requires_grad}
        return {name.replace(".default.", "."): parameter for name, parameter in {**unet, **text}.items()}

    def loss(self, micro):
        with torch.no_grad():
            posterior = self.vae.encode(micro.pictures["pixels_BCHW"]).latent_dist
            latents = (posterior.mean + posterior.std * micro.posterior_BCHW) * self.vae.config["scaling_factor"]
        noisy = self.scheduler.add_noise(latents, micro.noise_BCHW, micro.timesteps_B)
        states = self.text_encoder(micro.captions["ids_BET"][:, 0], return_dict=False)[0]
        predicted = self.unet(noisy, micro.timesteps_B, states, return_dict=False)[0]
        return F.mse_loss(predicted.float(), micro.noise_BCHW.float(), reduction="mean")


@pytest.mark.parametrize("method", METHODS)
def test_three_steps_are_the_ancestors(sd1, method):
    task, runner = started(sd1, method=method, optimizer=OPTIMIZER)
    ancestor = Ancestor(sd1, method=method)
    theirs = ancestor.parameters()
    assert theirs.keys() == runner.state.parameters.keys()
    with torch.no_grad():
        for name, parameter in runner.state.parameters.items():
            theirs[name].copy_(parameter)
    begun = {name: parameter.detach().clone() for name, parameter in theirs.items()}
    adamw = torch.optim.AdamW(theirs.values(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.1, eps=1e-6)
    for step in range(3):
        micro = make_micro(task, step=step, rows=range(2))
        ours = runner.run([micro], step=step, stop_wanted=False).read()
        loss = ancestor.loss(micro)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 0.01)
        adamw.step()
        adamw.zero_grad()
        assert (ours.loss, ours.grad_norm) == pytest.approx((float(loss.detach()), float(norm)), rel=1e-4)
    for part in ("unet.", "text_encoder."):
        moved, apart = [], []
        for name in (name for name in theirs if name.startswith(part)):
            moved.append(theirs[name] - begun[name])
            apart.append(runner.state.parameters[name] - theirs[name])
        assert norm_of(apart) <= 1e-3 * norm_of(moved), part


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_every_trained_parameter_has_a_gradient_and_no_other_is_trained(request, family, method):
    task, runner = started(request.getfixturevalue(family), method=method)
    gradients = applied_gradients(runner, [make_micro(task, step=0, rows=range(4))])
    assert gradients.keys() == runner.state.parameters.keys()
    parts = {"unet", "text_encoder", *(["text_encoder_2"] if family == "sdxl" else [])}
    assert {name.partition(".")[0] for name in gradients} == parts
    assert not [name for name in gradients if family == "sdxl" and name.startswith(UNSEEN)]
    for part in parts:
        assert norm_of(g for name, g in gradients.items() if name.startswith(f"{part}.")) > 0, part
    model = runner.models
    learning = {id(p) for m in (model.unet, model.vae, *model.text.parts.values()) for p in m.parameters() if p.requires_grad}
    assert learning == {id(parameter) for parameter in runner.state.parameters.values()}


@pytest.mark.parametrize("method", METHODS)
def test_gradient_checkpointing_changes_no_gradient(sdxl, method):
    found = []
    for checkpointing in (False, True):
        task, runner = started(sdxl, method=method, gradient_checkpointing=checkpointing)
        assert {e.is_activation_checkpointing for e in runner.models.text.parts.values()} == {checkpointing}
        found.append(applied_gradients(runner, [make_micro(task, step=0, rows=range(2))]))
    for name, gradient in found[0].items():
        assert found[1][name] == pytest.approx(gradient, abs=1e-6), name


@pytest.mark.parametrize("method", METHODS)
def test_bf16_computes_with_float32_masters(sd1, method):
    task, runner = started(sd1, method=method, precision="bf16")
    (encoder,) = runner.models.text.parts.values()
    assert encoder.dtype == (torch.bfloat16 if method == "lora" else torch.float32)
    micro = make_micro(task, step=0, rows=range(4))
    rounded = applied_gradients(runner, [micro])
    assert {p.dtype for p in runner.state.parameters.values()} == {g.dtype for g in rounded.values()} == {torch.float32}
    with runner.accelerator.autocast():
        states = runner.models.text.encode(micro.captions["ids_BET"], told_B=micro.captions["told_B"])["states_BTD"]
    exact = applied_gradients(started(sd1, method=method)[1], [micro])
    assert 0 < norm_of(rounded[name] - gradient for name, gradient in exact.items()) < 0.1 * norm_of(exact.values())
    assert states.dtype == torch.bfloat16 or method == "full"


def test_dropout_of_lora_is_the_text_encoders_too_and_off_for_pictures(sd1):
    task, runner = started(sd1, method="lora", lora={"dropout": 0.5})
    captions = make_micro(task, step=0, rows=range(2)).captions

    def encoded():
        return runner.models.text.encode(captions["ids_BET"], told_B=captions["told_B"])["states_BTD"]

    assert not torch.equal(encoded(), encoded())
    runner.models.train(False)
    assert torch.equal(encoded(), encoded())
    runner.models.train(True)
    assert not torch.equal(encoded(), encoded())


@torch.no_grad()
@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", "tiny.kohya.safetensors"])
def test_published_layers_are_what_the_pipeline_encodes_with(sd1, tmp_path, file):
    task, runner = started(sd1, method="lora", lora={"alpha": 8.0})
    captions = make_micro(task, step=0, rows=range(2)).captions
    arrays = {name: parameter.detach().numpy().copy() for name, parameter in runner.state.parameters.items()}
    write_checkpoint(tmp_path / "checkpoint", weights=arrays)
    build_published(tmp_path / "checkpoint", job=task.job, model_dir=sd1, out=tmp_path / "out")
    pipeline = StableDiffusionPipeline.from_pretrained(sd1)
    before = pipeline.text_encoder(captions["ids_BET"][:, 0]).last_hidden_state
    pipeline.load_lora_weights(tmp_path / "out", weight_name=file)
    after = pipeline.text_encoder(captions["ids_BET"][:, 0]).last_hidden_state
    trained = runner.models.text.encode(captions["ids_BET"], told_B=captions["told_B"])["states_BTD"]
    torch.testing.assert_close(after, trained, rtol=1e-5, atol=1e-6)
    assert (after - before).abs().max() > 0.01

"""SDXL from the job file to pictures: what a run publishes is loaded by StableDiffusionXLPipeline, and is what was trained."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from safetensors.torch import load_file

from fakes.backends import compiled_once
from fakes.running import SDJOB, Job
from sdjob.diffusion.text_encoders import spelled

LORA, KOHYA = "pytorch_lora_weights.safetensors", "tiny.kohya.safetensors"
FIELDS = {"family": "sdxl", "data__flip": True, "data__caption_dropout": 0.2, "train__steps": 3}
OWN = {
    "lora": {"train__lora": {"rank": 3, "alpha": 6}, "train__optimizer": {"learning_rate": 0.05}},
    "full": {"train__method": "full", "train__ema": {"decay": 0.5}},
}
# The first text encoder's last layer and what stands behind it: SDXL does not look there.
UNSEEN = ("text_encoder.text_model.encoder.layers.2.", "text_encoder.text_model.final_layer_norm.")


@pytest.fixture(scope="module")
def workplace(workshop):
    def make(backend: str, method: str, text_encoder: str) -> Job:
        fields = {**FIELDS, **OWN[method], "train__backend": backend, "train__text_encoder": text_encoder}
        name = f"sdxl {method} {text_encoder} on {backend}"
        return workshop.finished(name, environment=compiled_once(workshop), **fields)

    return make


def said(job: Job, *arguments: str) -> None:
    """What the command says where it fails."""
    environment = {**os.environ, "SDJOB_SCRATCH": str(job.scratch)}
    command = [str(SDJOB), *arguments]
    ended = subprocess.run(command, env=environment, cwd=job.folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def trained(job: Job, folder: Path, *, file: str) -> dict[str, torch.Tensor]:
    """The last commit's, by their names in it."""
    folder.mkdir()
    job.log.fetch(folder, step=FIELDS["train__steps"])
    return {name.removeprefix("ema."): tensor for name, tensor in load_file(folder / file).items()}


@torch.no_grad()
def latents(pipeline: Any) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return pipeline("a red circle", num_inference_steps=2, height=64, width=64, latents=start, output_type="latent").images


def parameters_of(pipeline: Any) -> dict[str, torch.Tensor]:
    found = {f"unet.{name}": tensor for name, tensor in pipeline.unet.state_dict().items()}
    for part in ("text_encoder", "text_encoder_2"):
        found |= {f"{part}.{spelled(name)}": tensor for name, tensor in getattr(pipeline, part).state_dict().items()}
    return found


@pytest.mark.parametrize(("backend", "text_encoder"), [("torch", "frozen"), ("flax", "lora")])
def test_a_lora_in_both_its_forms(workplace, workshop, tmp_path, backend, text_encoder):
    job = workplace(backend, "lora", text_encoder)
    drawn: list[torch.Tensor] = []
    for file in (None, LORA, KOHYA):
        pipeline = StableDiffusionXLPipeline.from_pretrained(workshop.model("sdxl"))
        if file:
            pipeline.load_lora_weights(job.out, weight_name=file)
        drawn.append(latents(pipeline))
    torch.testing.assert_close(drawn[1], drawn[2], rtol=1e-5, atol=1e-6)
    assert (drawn[1] - drawn[0]).abs().max() > 1e-3
    weights = trained(job, tmp_path / "commit", file="weights.safetensors")
    assert load_file(job.out / LORA).keys() == weights.keys()
    parts = {"text_encoder", "text_encoder_2", "unet"} if text_encoder == "lora" else {"unet"}
    assert {name.partition(".")[0] for name in weights} == parts
    assert not any(name.startswith(UNSEEN) for name in weights)


@pytest.mark.parametrize(("backend", "text_encoder"), [("torch", "full"), ("flax", "frozen")])
def test_a_whole_pipeline(workplace, workshop, tmp_path, backend, text_encoder):
    job = workplace(backend, "full", text_encoder)
    weights = trained(job, tmp_path / "commit", file="ema.safetensors")
    found = parameters_of(StableDiffusionXLPipeline.from_pretrained(job.out))
    base = parameters_of(StableDiffusionXLPipeline.from_pretrained(workshop.model("sdxl")))
    assert found.keys() == base.keys()
    for name, tensor in found.items():
        learns = name.startswith("unet.") or (text_encoder == "full" and not name.startswith(UNSEEN))
        assert (name in weights) == learns, name
        assert torch.equal(tensor, weights.get(name, base[name])), name
        assert torch.equal(tensor, base[name]) != learns, name


def test_pictures_and_card(workplace):
    published = workplace("torch", "full", "full").published()
    assert "samples/00-00.png" in published
    card = published["README.md"].decode()
    assert "StableDiffusionXLPipeline.from_pretrained" in card
    assert "its UNet and text encoders fine-tuned from" in card
    assert "stable-diffusion-xl" in card


def test_sample_and_export(workplace, tmp_path):
    job = workplace("flax", "lora", "lora")
    said(job, "export", str(job.to), "--to", str(tmp_path / "exported"), "--format", "kohya")
    assert (tmp_path / "exported" / KOHYA).read_bytes() == (job.out / KOHYA).read_bytes()
    said(job, "sample", str(job.file), "--prompt", "a red circle", "--out", str(tmp_path / "drawn"), "--inference-steps", "2")
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["00-00.png"]

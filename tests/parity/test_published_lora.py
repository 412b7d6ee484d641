"""What is published draws what was trained: peft's own layers, diffusers' loader and kohya's file agree."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from fakes.checkpoints import make_job
from fakes.tiny_models import write_tiny_model
from sdjob.job.weights import build_published

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERYTHING = [*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "time_emb_proj"]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for family in ("sd1", "sd2"):
        write_tiny_model(folder / family, family=family)
    return folder


def load_unet(model: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(model / "unet")


@torch.no_grad()
def predicted(unet: torch.nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noisy_BCHW = torch.randn(2, 4, 8, 8, generator=generator)
    states = torch.randn(2, 16, 32, generator=generator)
    return unet(noisy_BCHW, torch.tensor([10, 700]), states).sample


@torch.no_grad()
def train_at_random(
    unet: UNet2DConditionModel, *, rank: int, alpha: float, targets: list[str], **patterns: Any
) -> dict[str, Tensor]:
    """Gives a UNet LoRA layers of random weights, and returns these under a checkpoint's names."""
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, **patterns), unet)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in unet.named_parameters():
        if "lora_" in name:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    state = get_peft_model_state_dict(unet)
    return {f"unet.{name}": tensor.contiguous() for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("family", "lora"),
    [
        ("sd1", {"rank": 4, "alpha": 4.0, "targets": ATTENTION}),
        ("sd1", {"rank": 4, "alpha": 8.0, "targets": ATTENTION}),
        ("sd1", {"rank": 3, "alpha": 0.5, "targets": EVERYTHING}),
        ("sd2", {"rank": 4, "alpha": 8.0, "targets": EVERYTHING}),
    ],
)
def test_both_published_files_draw_what_was_trained(models, tmp_path, family, lora):
    model = models / family
    unet = load_unet(model)
    base = predicted(unet)
    tensors = train_at_random(unet, **lora)
    trained = predicted(unet)
    (tmp_path / "checkpoint").mkdir()
    save_file(tensors, tmp_path / "checkpoint" / "weights.safetensors")
    job = make_job("lora", train={"lora": lora})
    files = build_published(tmp_path / "checkpoint", job=job, model_dir=model, out=tmp_path / "out")
    assert files == ["pytorch_lora_weights.safetensors", "tiny.kohya.safetensors"]
    assert (trained - base).abs().max() > 0.01
    for file in files:
        pipeline = StableDiffusionPipeline.from_pretrained(model)
        pipeline.load_lora_weights(tmp_path / "out", weight_name=file)
        torch.testing.assert_close(predicted(pipeline.unet), trained, rtol=1e-5, atol=1e-6)


def test_ranks_and_alphas_by_pattern_are_in_both_files(models, tmp_path):
    """ComfyUI and A1111 add kohya's matrices each by its own alpha and rank; diffusers drops such alphas of that form."""
    patterns = {"rank_pattern": {"conv1": 2, "down_blocks.0.*to_q": 7}, "alpha_pattern": {"conv1": 1.0, "to_k": 3.0}}
    lora: dict[str, Any] = {"rank": 4, "alpha": 8.0, "targets": EVERYTHING, **patterns}
    unet = load_unet(models / "sd1")
    tensors = train_at_random(unet, **lora)
    (tmp_path / "checkpoint").mkdir()
    save_file(tensors, tmp_path / "checkpoint" / "weights.safetensors")
    job = make_job("lora", train={"lora": lora})
    build_published(tmp_path / "checkpoint", job=job, model_dir=models / "sd1", out=tmp_path / "out")
    pipeline = StableDiffusionPipeline.from_pretrained(models / "sd1")
    pipeline.load_lora_weights(tmp_path / "out")
    torch.testing.assert_close(predicted(pipeline.unet), predicted(unet), rtol=1e-5, atol=1e-6)
    kohya = merged(load_unet(models / "sd1"), load_file(tmp_path / "out" / "tiny.kohya.safetensors"))
    torch.testing.assert_close(predicted(kohya), predicted(unet), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def merged(unet: UNet2DConditionModel, kohya: dict[str, Tensor]) -> UNet2DConditionModel:
    """weight + alpha / rank * up x down, as https://github.com/kohya-ss/sd-scripts/blob/main/networks/merge_lora.py."""
    for name, weight in unet.named_parameters():
        module = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        if f"{module}.alpha" in kohya:
            up, down = (kohya[f"{module}.lora_{which}.weight"] for which in ("up", "down"))
            product = (up.flatten(1) @ down.flatten(1)).view(weight.shape)
            weight.data += kohya[f"{module}.alpha"] / down.shape[0] * product
    return unet


def test_the_folder_alone_is_enough_for_diffusers(models, tmp_path):
    unet = load_unet(models / "sd1")
    tensors = train_at_random(unet, rank=4, alpha=8.0, targets=ATTENTION)
    (tmp_path / "checkpoint").mkdir()
    save_file(tensors, tmp_path / "checkpoint" / "weights.safetensors")
    job = make_job("lora", train={"lora": {"rank": 4, "alpha": 8.0}})
    build_published(tmp_path / "checkpoint", job=job, model_dir=models / "sd1", out=tmp_path / "out")
    pipeline = StableDiffusionPipeline.from_pretrained(models / "sd1")
    pipeline.load_lora_weights(tmp_path / "out")
    torch.testing.assert_close(predicted(pipeline.unet), predicted(unet), rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", ["sd1", "sd2"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_published_pipeline_has_the_trained_unet_and_draws(models, tmp_path, family, variant):
    model = models / family
    if variant:
        # A base that holds nothing but half precision, as many on the Hub do.
        model = tmp_path / "half"
        shutil.copytree(models / family / "tokenizer", model / "tokenizer")
        StableDiffusionPipeline.from_pretrained(models / family, dtype=torch.float16).save_pretrained(model, variant=variant)
    trained = load_unet(models / family)
    generator = torch.Generator().manual_seed(3)
    for parameter in trained.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    (tmp_path / "checkpoint").mkdir()
    state = {f"unet.{name}": tensor.contiguous() for name, tensor in trained.state_dict().items()}
    save_file(state, tmp_path / "checkpoint" / "weights.safetensors")
    job = make_job("full", model={"variant": variant})
    build_published(tmp_path / "checkpoint", job=job, model_dir=model, out=tmp_path / "out")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert torch.equal(predicted(pipeline.unet), predicted(trained))
    assert not torch.equal(predicted(pipeline.unet), predicted(load_unet(models / family)))
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a red circle", num_inference_steps=2, height=64, width=64).images[0]
    assert picture.size == (64, 64)

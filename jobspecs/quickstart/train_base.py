"""Trains the quickstart's base model: a Stable Diffusion pipeline of some MB that draws one shape on a background.

Run once (about an hour on two cores); its result is the folder `base` beside this file:

    python jobspecs/quickstart/train_base.py --out jobspecs/quickstart/base

The folder `base` beside this file is the save of step 1500 of the default 2400, where the meter reads the shape and both
colours of all 40 prompts right. Three parts: a tokenizer whose merges make one token of each caption word; a VAE (f8, 64 px
to 8 x 8 latents) that starts as a pass-through of the patches' mean colours; a v-prediction UNet trained together with its
text encoder on the VAE's latents (min-SNR 5, arXiv 2303.09556; caption dropout 0.1; EMA).
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from base_vae import LATENT_CHANNELS, make_vae, pass_through
from meter import read
from shapes import COLOURS, SHAPES, SIZE_PX, Scene, all_subjects, draw, paint, random_scenes

TOKENS = 16
CAPTION_DROPOUT = 0.1
SNR_GAMMA = 5.0


# ---- tokenizer -------------------------------------------------------------------------------------------------------


def byte_symbols() -> list[str]:
    """CLIP's printable stand-ins for the 256 bytes (https://github.com/openai/CLIP, simple_tokenizer.bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_in = {byte: chr(byte) for byte in printable}
    stand_in |= {byte: chr(256 + n) for n, byte in enumerate(b for b in range(256) if b not in stand_in)}
    return list(stand_in.values())


def word_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges that join each word from its left end: c+i, ci+r, ... up to the whole word with its end mark."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        symbols = [*word[:-1], word[-1] + "</w>"]
        left = symbols[0]
        for right in symbols[1:]:
            merges.setdefault((left, right))
            left += right
    return list(merges)


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    words = ["an", "on", "background", *SHAPES, *COLOURS]
    merges = word_merges(words)
    symbols = byte_symbols()
    vocabulary = [*symbols, *(s + "</w>" for s in symbols), *("".join(m) for m in merges), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({s: n for n, s in enumerate(dict.fromkeys(vocabulary))}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(m) for m in merges)]) + "\n", encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS)


# ---- VAE -------------------------------------------------------------------------------------------------------------


def train_vae(pictures_BCHW: Tensor, *, steps: int, batch: int) -> AutoencoderKL:
    vae = make_vae()
    pass_through(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps=steps))
    started = time.monotonic()
    for step in range(steps):
        images_BCHW = pictures_BCHW[torch.randint(len(pictures_BCHW), (batch,))]
        posterior = vae.encode(images_BCHW).latent_dist
        decoded_BCHW = vae.decode(posterior.sample()).sample
        l1 = F.l1_loss(decoded_BCHW, images_BCHW)
        loss = l1 + F.mse_loss(decoded_BCHW, images_BCHW) + 1e-6 * posterior.kl().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            print(f"vae {step}/{steps}  L1 {l1.item():.4f}  {time.monotonic() - started:.0f} s", flush=True)
    return vae.eval()


# ---- UNet and text encoder -------------------------------------------------------------------------------------------


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE_PX // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
        norm_num_groups=16,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def warmup_cosine(step: int, *, steps: int, warmup: int = 50) -> float:
    return min(1.0, (step + 1) / warmup) * max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps)))


@torch.no_grad()
def encode_all(vae: AutoencoderKL, pictures_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every picture's latents, before scaling."""
    posteriors = [vae.encode(chunk).latent_dist for chunk in pictures_BCHW.split(64)]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


def training_loss(unet: nn.Module, latents: Tensor, states: Tensor, noise_schedule: DDPMScheduler) -> Tensor:
    noise = torch.randn_like(latents)
    timesteps = torch.randint(noise_schedule.config.num_train_timesteps, (len(latents),))
    noisy = noise_schedule.add_noise(latents, noise, timesteps)
    target = noise_schedule.get_velocity(latents, noise, timesteps)
    predicted = unet(noisy, timesteps, states).sample
    snr = compute_snr(noise_schedule, timesteps)
    weight = snr.clamp(max=SNR_GAMMA) / (snr + 1)
    return (F.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3)) * weight).mean()


class Pair(nn.Module):
    """The two parts that train together, as one module for the optimizer and EMA."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, token_ids: Tensor) -> object:
        return self.unet(noisy, timesteps, self.text_encoder(token_ids)[0])


def train_unet(
    pair: Pair, latents: tuple[Tensor, Tensor], token_ids: Tensor, empty_ids: Tensor, *, args: argparse.Namespace, save
) -> None:
    means, stds = latents
    noise_schedule = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    optimizer = torch.optim.AdamW(pair.parameters(), lr=args.learning_rate, weight_decay=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps=args.steps))
    ema = EMAModel(pair.parameters(), decay=0.998, use_ema_warmup=False)
    started, losses = time.monotonic(), []
    for step in range(args.steps):
        picks = torch.randint(len(means), (args.batch,))
        sampled = means[picks] + stds[picks] * torch.randn_like(means[picks])
        ids = torch.where(torch.rand(args.batch, 1) < CAPTION_DROPOUT, empty_ids, token_ids[picks])
        loss = training_loss(pair, sampled, ids, noise_schedule)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(pair.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ema.step(pair.parameters())
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(
                f"unet {step + 1}/{args.steps}  loss {np.mean(losses[-50:]):.4f}  {time.monotonic() - started:.0f} s", flush=True
            )
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            ema.store(pair.parameters())
            ema.copy_to(pair.parameters())
            save()
            ema.restore(pair.parameters())


# ---- the whole ---------------------------------------------------------------------------------------------------------


def as_tensor(pictures: list[Image.Image]) -> Tensor:
    pixels_NHWC = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])
    return torch.from_numpy(pixels_NHWC / 127.5 - 1.0).permute(0, 3, 1, 2).contiguous()


def in_any_colours(scenes: list[Scene], *, seed: int) -> list[Image.Image]:
    """What the VAE is trained on: it must carry the colours of styles that the UNet has not learned yet."""
    colours = np.random.Generator(np.random.Philox(key=seed)).integers(0, 256, (len(scenes), 2, 3)).tolist()
    return [paint(scene, colour=tuple(c), background=tuple(b)) for scene, (c, b) in zip(scenes, colours, strict=True)]


def make_pipeline(vae: AutoencoderKL, pair: Pair, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae, text_encoder=pair.text_encoder, tokenizer=tokenizer, unet=pair.unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@torch.no_grad()
def right_share(pipeline: StableDiffusionPipeline, *, count: int) -> dict[str, float]:
    """The share of prompts whose picture shows what the prompt says, part by part."""
    subjects = all_subjects()[:: max(1, len(all_subjects()) // count)][:count]
    prompts = [Scene(*subject).caption for subject in subjects]
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(n) for n in range(count)]
    images = pipeline(prompts, num_inference_steps=20, guidance_scale=4.0, generator=generators).images
    readings = [read(image) for image in images]
    pairs = list(zip(readings, subjects, strict=True))
    return {
        "shape": sum(r.shape == s[0] for r, s in pairs) / count,
        "colour": sum(r.colour == s[1] for r, s in pairs) / count,
        "background": sum(r.background == s[2] for r, s in pairs) / count,
        "pastel": sum(r.style == "pastel" for r in readings) / count,
    }


def save_pipeline(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Stored in fp16: half the size; trainers keep float32 masters of it."""
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder)
    pipeline.to(dtype=torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--vae-steps", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--save-every", type=int, default=500)
    args = parser.parse_args()
    torch.manual_seed(0)
    scenes = random_scenes(args.pictures, seed=0)
    pictures_BCHW = as_tensor([draw(scene) for scene in scenes])
    tokenizer = make_tokenizer(args.out / "tokenizer")
    vae = train_vae(as_tensor(in_any_colours(scenes, seed=1)), steps=args.vae_steps, batch=32)
    means, stds = encode_all(vae, pictures_BCHW)
    vae.register_to_config(scaling_factor=1.0 / float(means.std()))
    vae.save_pretrained(args.out / "vae")
    latents = (means * vae.config.scaling_factor, stds * vae.config.scaling_factor)
    token_ids = tokenizer([s.caption for s in scenes], padding="max_length", truncation=True, return_tensors="pt").input_ids
    empty_ids = tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    pair = Pair(make_unet(), make_text_encoder(tokenizer))
    print(f"parameters: {sum(p.numel() for p in pair.parameters()):,}; scaling {vae.config.scaling_factor:.3f}", flush=True)
    pipeline = make_pipeline(vae, pair, tokenizer)

    def save() -> None:
        pair.eval()
        print("right:", right_share(pipeline, count=40), flush=True)
        save_pipeline(make_pipeline(vae, pair, tokenizer), args.out)
        vae.float()
        pair.float().train()

    train_unet(pair, latents, token_ids, empty_ids, args=args, save=save)


if __name__ == "__main__":
    main()

"""A plain training loop, one of throughput.py's arms: the step as diffusers' example scripts do it, and levers that change it.

As it is: the encoders run in every step, kernels are eager and in torch's own memory layout, AdamW is not fused, pictures are
read between the steps, and the loss is fetched after each of them. `--lever NAME` pulls one; each may be given. A line is printed
when a step is over.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextModel, CLIPTokenizer

from sdjob.train_torch.lora_layer import fuse

LEVERS = ("encoders-once", "fused", "channels-last", "lora-as-one", "clip-where-needed", "compiled")
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
Batch = dict[str, Tensor]


class Pictures(Dataset[Batch]):
    """Decoded and tokenized whenever they are asked for."""

    def __init__(self, folder: Path, *, side_px: int, tokenizer: CLIPTokenizer) -> None:
        lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        self.rows = [json.loads(line) for line in lines]
        self.folder, self.side_px, self.tokenizer = folder, side_px, tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        row, side = self.rows[index], self.side_px
        picture = Image.open(self.folder / row["file_name"]).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
        most = self.tokenizer.model_max_length
        ids = self.tokenizer(row["text"], max_length=most, padding="max_length", truncation=True, return_tensors="pt").input_ids[
            0
        ]
        return {"pixels": pixels, "ids": ids}


@dataclass
class Models:
    unet: Any
    vae: Any
    text: Any
    noise: Any


def read_models(folder: Path) -> Models:
    return Models(
        UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        AutoencoderKL.from_pretrained(folder, subfolder="vae"),
        CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
        DDPMScheduler.from_pretrained(folder, subfolder="scheduler"),
    )


def prepare(models: Models, *, method: str, levers: set[str]) -> list[torch.nn.Parameter]:
    """The trainable parameters."""
    for frozen in (models.vae, models.text):
        frozen.requires_grad_(False)
    if method == "lora":
        models.unet.requires_grad_(False)
        models.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=TARGETS))
    models.unet.train()
    if "channels-last" in levers:
        models.unet.to(memory_format=torch.channels_last)
        models.vae.to(memory_format=torch.channels_last)
    if "lora-as-one" in levers:
        fuse(models.unet)
    if "compiled" in levers:
        models.unet.compile_repeated_blocks()
    return [p for p in models.unet.parameters() if p.requires_grad]


def encode(models: Models, batch: Batch) -> Batch:
    with torch.no_grad():
        posterior = models.vae.encode(batch["pixels"]).latent_dist
        return {"mean": posterior.mean, "std": posterior.std, "states": models.text(batch["ids"], return_dict=False)[0]}


def loss_of(models: Models, encoded: Batch) -> Tensor:
    mean = encoded["mean"]
    latents = (mean + encoded["std"] * torch.randn_like(mean)) * models.vae.config.scaling_factor
    noise = torch.randn_like(latents)
    timesteps = torch.randint(0, models.noise.config.num_train_timesteps, (len(latents),)).long()
    noisy = models.noise.add_noise(latents, noise, timesteps)
    predicted = models.unet(noisy, timesteps, encoded["states"], return_dict=False)[0]
    return F.mse_loss(predicted.float(), noise.float())


def endless(loader: DataLoader[Batch]) -> Iterator[Batch]:
    while True:
        yield from loader


def encoded_once(models: Models, pictures: Pictures, *, batch: int) -> Iterator[Batch]:
    """Each picture through the encoders once, then batches of what they made."""
    made = [encode(models, {name: value[None] for name, value in pictures[i].items()}) for i in range(len(pictures))]
    while True:
        chosen = random.sample(made, batch) if batch <= len(made) else random.choices(made, k=batch)
        yield {name: torch.cat([one[name] for one in chosen]) for name in made[0]}


def clip_where_needed(parameters: list[torch.nn.Parameter]) -> None:
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm + 1e-6 > 1.0:
        torch.nn.utils.clip_grads_with_norm_(parameters, 1.0, norm)


def train(asked: argparse.Namespace, *, tell: Callable[[int, float], None]) -> None:
    accelerator, levers = Accelerator(cpu=True), set[str](asked.lever)
    models = read_models(asked.model)
    parameters = prepare(models, method=asked.method, levers=levers)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-2, fused=True if "fused" in levers else None)
    tokenizer = CLIPTokenizer.from_pretrained(asked.model, subfolder="tokenizer")
    pictures = Pictures(asked.pictures, side_px=asked.resolution, tokenizer=tokenizer)
    if "encoders-once" in levers:
        batches = encoded_once(models, pictures, batch=asked.batch)
    else:
        loader = DataLoader(pictures, batch_size=asked.batch, shuffle=True)
        batches = (encode(models, batch) for batch in endless(loader))
    models.unet, optimizer = accelerator.prepare(models.unet, optimizer)
    for step, encoded in zip(range(asked.steps), batches, strict=False):
        loss = loss_of(models, encoded)
        accelerator.backward(loss)
        if "clip-where-needed" in levers:
            clip_where_needed(parameters)
        else:
            accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tell(step + 1, loss.detach().item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--method", choices=["lora", "full"], required=True)
    for name, default in (("resolution", 256), ("batch", 1), ("steps", 25), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lever", action="append", choices=LEVERS, default=[])
    asked = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    random.seed(asked.seed)
    torch.manual_seed(asked.seed)
    train(asked, tell=lambda step, loss: print(json.dumps({"step": step, "time_s": time.time(), "loss": loss}), flush=True))


if __name__ == "__main__":
    main()

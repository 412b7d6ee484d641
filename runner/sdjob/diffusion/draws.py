"""Everything random about a sample at a step, drawn on the host in float32 from streams keyed by (seed, step, index).

Axes: B pictures of the micro-batch, C latent channels, H x W latent positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sdjob.core.streams import stream
from sdjob.diffusion.schedule import NoiseSchedule, read_schedule
from sdjob.spec.task import TrainTask

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class DrawPlan:
    """What the draws depend on beside (step, index): the same for all pictures of a size."""

    seed: int
    schedule: NoiseSchedule
    latent_shape: tuple[int, int, int]
    """(C, H, W) of one picture's latents."""

    snr_gamma: float | None = None
    noise_offset: float = 0.0
    input_perturbation: float = 0.0
    pixels_per_latent: int = 8
    """Of a side."""

    @classmethod
    def of(cls, task: TrainTask, *, latent_shape: tuple[int, int, int]) -> Self:
        """`latent_shape`: of a picture of the job's resolution."""
        train = task.job.train
        return cls(
            seed=train.seed,
            schedule=read_schedule(task.model, prediction=train.loss.prediction),
            latent_shape=latent_shape,
            snr_gamma=train.loss.snr_gamma,
            noise_offset=train.loss.noise_offset,
            input_perturbation=train.loss.input_perturbation,
            pixels_per_latent=task.job.data.resolution.height // latent_shape[1],
        )

    def of_pictures(self, *, height: int, width: int) -> "DrawPlan":
        """For pictures of these pixels; the draws of one size are not those of another cut to it."""
        latents = (self.latent_shape[0], height // self.pixels_per_latent, width // self.pixels_per_latent)
        return self if latents == self.latent_shape else replace(self, latent_shape=latents)


@dataclass(frozen=True)
class Draws:
    """The draws of a micro-batch. Noisy latents are signal * latents + sigma * input_noise; the target is `noise`
    (epsilon) or signal * noise - sigma * latents (v-prediction, arXiv 2202.00512, section 4)."""

    timesteps_B: NDArray[np.int64]
    signal_B: Float32
    sigma_B: Float32
    loss_weight_B: Float32
    noise_BCHW: Float32
    input_noise_BCHW: Float32
    posterior_BCHW: Float32
    """Standard normal draw for the VAE's posterior."""


def timestep_of(plan: DrawPlan, *, step: int, index: int) -> int:
    return int(stream(plan.seed, "timestep", step, index).integers(plan.schedule.num_timesteps))


def noise_of(plan: DrawPlan, *, step: int, index: int) -> tuple[Float32, Float32]:
    """(noise of the target, noise of the input), each (C, H, W).

    Noise offset: https://www.crosslabs.org/blog/diffusion-with-offset-noise. Input perturbation: arXiv 2301.11706.
    """
    noise = stream(plan.seed, "noise", step, index).standard_normal(plan.latent_shape, dtype=np.float32)
    if plan.noise_offset:
        channels = stream(plan.seed, "noise_offset", step, index).standard_normal((plan.latent_shape[0], 1, 1), dtype=np.float32)
        noise += np.float32(plan.noise_offset) * channels
    if not plan.input_perturbation:
        return noise, noise
    extra = stream(plan.seed, "input_perturbation", step, index).standard_normal(plan.latent_shape, dtype=np.float32)
    extra *= np.float32(plan.input_perturbation)
    extra += noise
    return noise, extra


def draw(plan: DrawPlan, *, step: int, indices: Sequence[int]) -> Draws:
    """The draws of the pictures at `indices` of the global batch of a step."""
    timesteps = np.array([timestep_of(plan, step=step, index=i) for i in indices], dtype=np.int64)
    alpha_bar = plan.schedule.alphas_cumprod[timesteps]
    noises = [noise_of(plan, step=step, index=i) for i in indices]
    posterior = [stream(plan.seed, "posterior", step, i).standard_normal(plan.latent_shape, dtype=np.float32) for i in indices]
    return Draws(
        timesteps_B=timesteps,
        signal_B=np.sqrt(alpha_bar).astype(np.float32),
        sigma_B=np.sqrt(1.0 - alpha_bar).astype(np.float32),
        loss_weight_B=plan.schedule.loss_weights(plan.snr_gamma)[timesteps].astype(np.float32),
        noise_BCHW=np.stack([target for target, _ in noises]),
        input_noise_BCHW=np.stack([given for _, given in noises]),
        posterior_BCHW=np.stack(posterior),
    )


def initial_lora_A(name: str, *, shape: tuple[int, ...], seed: int) -> Float32:
    """peft's distribution for A, kaiming_uniform with a = sqrt(5): uniform in +-1 / sqrt(fan_in); B starts at zero.

    Keyed by the parameter's name, so that backends and ranks agree without a broadcast.
    """
    bound = 1.0 / np.sqrt(np.prod(shape[1:]))
    return stream(seed, f"init {name}").uniform(-bound, bound, shape).astype(np.float32)


def initial_latents(shape: tuple[int, int, int], *, seed: int, prompt: int, image: int) -> Float32:
    """Starting noise of a validation picture: the same at every step and on every backend, so that pictures compare."""
    return stream(seed, "sample", prompt, image).standard_normal(shape, dtype=np.float32)

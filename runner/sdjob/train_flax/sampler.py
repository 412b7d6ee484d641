"""From noise to latents as the model's own scheduler goes: DDIM (arXiv 2010.02502, eta 0), or PLMS, which is a linear multistep
over the same steps (arXiv 2202.09778, and https://github.com/CompVis/latent-diffusion/pull/51).

Euler's method for the same equation, as SDXL names it, makes DDIM's steps in other variables (arXiv 2206.00364, C.3.4). A model
that names another scheduler is drawn by DDIM on that one's noise schedule. All of it is numpy on the host.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdjob.core.errors import UsageError
from sdjob.diffusion.family import SCHEDULER_CONFIG, read_config
from sdjob.diffusion.schedule import NoiseSchedule, read_schedule

Floats = NDArray[np.float32]
Predict = Callable[[Floats, int], Floats]
"""(noisy latents, timestep) -> what the UNet predicts."""

# Adams-Bashforth: weights of the present prediction and of those before it.
MULTISTEP = (
    np.array([1.0]),
    np.array([3.0, -1.0]) / 2,
    np.array([23.0, -16.0, 5.0]) / 12,
    np.array([55.0, -59.0, 37.0, -9.0]) / 24,
)


@dataclass(frozen=True)
class Sampler:
    schedule: NoiseSchedule
    num_steps: int
    spacing: str
    offset: int
    last_alpha_bar: float
    """Behind the last step: 1, or that of timestep 0."""

    clip: float | None
    """Foreseen pictures are held within plus and minus this."""

    multistep: bool

    @classmethod
    def of(cls, model: Path, *, num_steps: int) -> "Sampler":
        """UsageError (64) for an option that would have to be left out."""
        config, schedule = read_config(model / SCHEDULER_CONFIG), read_schedule(model)
        kind = str(config.get("_class_name"))
        refuse(config, kind=kind, schedule=schedule, num_steps=num_steps)
        ddim = kind == "DDIMScheduler"
        clips = ddim and config.get("clip_sample", True)
        return cls(
            schedule=schedule,
            num_steps=num_steps,
            spacing=config.get("timestep_spacing", "leading"),
            offset=config.get("steps_offset", 0),
            last_alpha_bar=1.0 if ends_clean(config, kind=kind) else float(schedule.alphas_cumprod[0]),
            clip=config.get("clip_sample_range", 1.0) if clips else None,
            multistep=kind == "PNDMScheduler",
        )

    def draw(self, noisy: Floats, *, predict: Predict) -> Floats:
        walk = self._multistep if self.multistep else self._ddim
        return walk(noisy, timesteps=self.timesteps(), stride=self.schedule.num_timesteps // self.num_steps, predict=predict)

    def timesteps(self) -> list[int]:
        """As diffusers spaces them
        (https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/schedulers/scheduling_ddim.py)."""
        count, num_steps = self.schedule.num_timesteps, self.num_steps
        if self.spacing == "leading":
            found = np.arange(num_steps)[::-1] * (count // num_steps) + self.offset
        elif self.spacing == "trailing":
            found = np.round(np.arange(count, 0, -count / num_steps)) - 1
        else:
            found = np.linspace(0, count - 1, num_steps).round()[::-1]
        return [min(int(timestep), count - 1) for timestep in found]

    def _ddim(self, noisy: Floats, *, timesteps: list[int], stride: int, predict: Predict) -> Floats:
        for timestep in timesteps:
            noisy = self.stepped(noisy, predict(noisy, timestep), start=timestep, end=timestep - stride)
        return noisy

    def _multistep(self, noisy: Floats, *, timesteps: list[int], stride: int, predict: Predict) -> Floats:
        """The first step is made twice: its second prediction is that of where the first one led (Heun)."""
        first = predict(noisy, timesteps[0])
        past, start = [first], noisy
        noisy = self.stepped(start, first, start=timesteps[0], end=timesteps[0] - stride)
        if len(timesteps) > 1:
            mean = np.float32(0.5) * (first + predict(noisy, timesteps[1]))
            noisy = self.stepped(start, mean, start=timesteps[1] + stride, end=timesteps[1])
        for timestep in timesteps[1:]:
            past = [predict(noisy, timestep), *past[:3]]
            mixed = sum(weight * old for weight, old in zip(MULTISTEP[len(past) - 1], past, strict=True))
            noisy = self.stepped(noisy, np.asarray(mixed, np.float32), start=timestep, end=timestep - stride)
        return noisy

    def stepped(self, noisy: Floats, predicted: Floats, *, start: int, end: int) -> Floats:
        """DDIM's equation 12 without noise: the picture and the noise that are foreseen, mixed anew."""
        now, then = self._alpha_bar(start), self._alpha_bar(end)
        signal, sigma = now**0.5, (1.0 - now) ** 0.5
        if self.schedule.prediction == "v_prediction":
            picture, noise = signal * noisy - sigma * predicted, signal * predicted + sigma * noisy
        else:
            picture, noise = (noisy - sigma * predicted) / signal, predicted
        if self.clip is not None:
            picture = picture.clip(-self.clip, self.clip)
        return (then**0.5 * picture + (1.0 - then) ** 0.5 * noise).astype(np.float32)

    def _alpha_bar(self, timestep: int) -> float:
        if timestep < 0:
            return self.last_alpha_bar
        return float(self.schedule.alphas_cumprod[min(timestep, self.schedule.num_timesteps - 1)])


def ends_clean(config: dict[str, Any], *, kind: str) -> bool:
    """Whether no noise is foreseen behind the last step."""
    if kind == "EulerDiscreteScheduler":
        return config.get("final_sigmas_type", "zero") == "zero"
    return config.get("set_alpha_to_one", kind == "DDIMScheduler")


# ---- what is not drawn -----------------------------------------------------------------------------------------------------


def refuse(config: dict[str, Any], *, kind: str, schedule: NoiseSchedule, num_steps: int) -> None:
    spacing = config.get("timestep_spacing", "leading")
    if spacing not in ("leading", "trailing", "linspace"):
        raise refusal(f"timestep_spacing {spacing!r}")
    if kind == "DDIMScheduler" and config.get("thresholding"):
        raise refusal("dynamic thresholding")
    if kind == "PNDMScheduler" and not config.get("skip_prk_steps"):
        raise refusal("PNDM's Runge-Kutta steps (skip_prk_steps is false)")
    if schedule.prediction == "epsilon" and schedule.alphas_cumprod[-1] == 0:
        raise refusal("noise predictions at zero terminal SNR, which tell nothing of the picture")
    if num_steps > schedule.num_timesteps:
        raise UsageError(f"{num_steps} inference steps are more than the model's {schedule.num_timesteps} timesteps.")


def refusal(what: str) -> UsageError:
    return UsageError(
        f"the flax backend draws no pictures by {what}.",
        where=SCHEDULER_CONFIG,
        next_step="Draw with torch, or train without validation.",
    )

"""The noise schedule that a model was trained with, read from its own scheduler/scheduler_config.json.

Everything here is numpy on the host: the timestep is drawn on the host, so its coefficients and loss weight travel with
the batch, and no backend needs formulas of its own.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdjob.core.errors import UsageError

Prediction = Literal["epsilon", "v_prediction"]

# Those that know rescale_betas_zero_snr: https://github.com/huggingface/diffusers/tree/v0.42.0/src/diffusers/schedulers
ZERO_TERMINAL_SCHEDULERS = {
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
}
# What DDIM shares with any other scheduler.
DDIM_KEYS = {
    "_diffusers_version",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "num_train_timesteps",
    "prediction_type",
    "rescale_betas_zero_snr",
    "set_alpha_to_one",
    "steps_offset",
    "timestep_spacing",
    "trained_betas",
}


@dataclass(frozen=True)
class NoiseSchedule:
    alphas_cumprod: NDArray[np.float64]
    """alpha-bar of each training timestep, shape (num_timesteps,)."""

    prediction: Prediction

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def snr(self) -> NDArray[np.float64]:
        """Signal-to-noise ratio alpha-bar / (1 - alpha-bar) of each timestep."""
        return self.alphas_cumprod / (1.0 - self.alphas_cumprod)

    def loss_weights(self, snr_gamma: float | None) -> NDArray[np.float64]:
        """Min-SNR weight of each timestep (arXiv 2303.09556, section 3.4): min(snr, gamma) / snr for epsilon, / (snr + 1) for v.

        At zero SNR the epsilon weight is its limit, 1, and that of v is 0.
        """
        if snr_gamma is None:
            return np.ones(self.num_timesteps)
        snr = self.snr
        clipped = np.minimum(snr, snr_gamma)
        if self.prediction == "v_prediction":
            return clipped / (snr + 1.0)
        return np.divide(clipped, snr, out=np.ones_like(snr), where=snr > 0)


def betas_of(config: dict[str, Any]) -> NDArray[np.float64]:
    """The betas that diffusers' DDPMScheduler makes of the same configuration."""
    if config.get("trained_betas") is not None:
        return np.asarray(config["trained_betas"], dtype=np.float64)
    count, start, end = config["num_train_timesteps"], config["beta_start"], config["beta_end"]
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return np.linspace(start, end, count)
    if kind == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, count) ** 2
    if kind == "squaredcos_cap_v2":
        time = np.arange(count + 1) / count
        alpha_bar = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    raise UsageError(
        f"the model's noise schedule is {kind!r}; linear, scaled_linear and squaredcos_cap_v2 are known",
        where="scheduler/scheduler_config.json: beta_schedule",
    )


def zero_terminal_snr(alphas_cumprod: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shifts and scales sqrt(alpha-bar) so that the last timestep holds no signal (arXiv 2305.08891, algorithm 1)."""
    root = np.sqrt(alphas_cumprod)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def zero_terminal_config(config: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The scheduler's configuration whose last timestep holds no signal, as the paper samples it: by trailing timesteps.

    A scheduler that cannot be so becomes DDIM. UsageError (64) for a model that predicts the noise: where the input is noise
    alone that says nothing of the picture (section 3.2).
    """
    if config.get("prediction_type", "epsilon") != "v_prediction":
        raise UsageError(
            "the model predicts the noise, and where its input is noise alone that says nothing of the picture.",
            where=where,
            next_step="Take it out, or name a model with v_prediction, such as Stable Diffusion 2.1 at 768 pixels.",
        )
    changed = {**config, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if config.get("_class_name") in ZERO_TERMINAL_SCHEDULERS:
        return changed
    known = {key: value for key, value in changed.items() if key in DDIM_KEYS}
    return {**known, "_class_name": "DDIMScheduler", "clip_sample": False}


def read_schedule(model_dir: Path, *, prediction: Literal["auto", "epsilon", "v_prediction"] = "auto") -> NoiseSchedule:
    """The schedule of a diffusers model folder; a job that contradicts the model's prediction type is refused (64)."""
    config = json.loads((model_dir / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    of_model = config.get("prediction_type", "epsilon")
    if of_model not in ("epsilon", "v_prediction"):
        raise UsageError(
            f"the model predicts {of_model!r}; epsilon and v_prediction can be trained",
            where="scheduler/scheduler_config.json: prediction_type",
        )
    if prediction not in ("auto", of_model):
        raise UsageError(
            f"the job asks for {prediction}, but the model's scheduler says {of_model}.",
            where="train.loss.prediction",
            next_step="Leave it at auto, or use a model of the other kind.",
        )
    alphas_cumprod = np.cumprod(1.0 - betas_of(config), dtype=np.float64)
    if config.get("rescale_betas_zero_snr"):
        alphas_cumprod = zero_terminal_snr(alphas_cumprod)
    return NoiseSchedule(alphas_cumprod=alphas_cumprod, prediction=of_model)

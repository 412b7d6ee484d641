"""The noise under which a held-out picture is looked at: keyed by what the picture holds, and by nothing of the run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sdjob.core.streams import stream
from sdjob.diffusion.draws import DrawPlan, Draws


@dataclass(frozen=True)
class HeldOutKey:
    content: int
    """Of the picture, 64 bits."""

    level: int
    counts: bool


@dataclass(frozen=True)
class HeldOutDraws:
    """Draws of a batch's rows. Errors are weighed alike at all levels, whatever the job's loss: so that jobs compare."""

    plan: DrawPlan
    size: Callable[[int], tuple[int, int]]
    """(height, width) in pixels of a batch's pictures."""

    key: Callable[[int, int], HeldOutKey]
    """Of a batch's row."""

    num_levels: int

    def __call__(self, batch: int, members: Sequence[int]) -> Draws:
        height, width = self.size(batch)
        shape = self.plan.of_pictures(height=height, width=width).latent_shape
        keys = [self.key(batch, member) for member in members]
        timesteps = np.array([self._timestep(key.level) for key in keys], dtype=np.int64)
        alpha_bar = self.plan.schedule.alphas_cumprod[timesteps]
        noise = np.stack([self._drawn("held-out noise", key.content, key.level, shape=shape) for key in keys])
        return Draws(
            timesteps_B=timesteps,
            signal_B=np.sqrt(alpha_bar).astype(np.float32),
            sigma_B=np.sqrt(1.0 - alpha_bar).astype(np.float32),
            loss_weight_B=np.array([float(key.counts) for key in keys], dtype=np.float32),
            noise_BCHW=noise,
            input_noise_BCHW=noise,
            posterior_BCHW=np.stack([self._drawn("held-out posterior", key.content, shape=shape) for key in keys]),
        )

    def _timestep(self, level: int) -> int:
        """The middle of each of as many equal parts of the schedule as there are levels."""
        return int((level + 0.5) * self.plan.schedule.num_timesteps / self.num_levels)

    def _drawn(self, name: str, *counters: int, shape: tuple[int, int, int]) -> np.ndarray:
        return stream(0, name, *counters).standard_normal(shape, dtype=np.float32)

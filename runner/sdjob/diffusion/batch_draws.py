"""The draws of a rank's rows at a step: of the size that the step's pictures have, with prior pictures weighed.

Prior preservation (arXiv 2208.12242, as in https://github.com/huggingface/diffusers/blob/v0.42.0/examples/dreambooth/train_dreambooth_lora.py):
loss = mean over the pictures + weight x mean over the prior pictures, one of which stands behind each picture of a micro-step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sdjob.diffusion.draws import DrawPlan, Draws, draw

DrawsOf = Callable[[int, Sequence[int]], Draws]
"""Of a step, or another number of a batch, and rows of it."""


@dataclass(frozen=True)
class BatchDraws:
    plan: DrawPlan
    size: Callable[[int], tuple[int, int]]
    """(height, width) in pixels of a step's pictures."""

    global_batch: int
    prior_weight: float | None = None
    """None: no prior pictures stand beside the others."""

    def __call__(self, step: int, members: Sequence[int]) -> Draws:
        height, width = self.size(step)
        drawn = draw(self.plan.of_pictures(height=height, width=width), step=step, indices=members)
        if self.prior_weight is None:
            return drawn
        # The loss is the mean over twice as many rows as there are pictures: 2 makes it the sum of both means.
        weights = np.where(np.array(members) < self.global_batch, 2.0, 2.0 * self.prior_weight)
        return replace(drawn, loss_weight_B=drawn.loss_weight_B * weights.astype(np.float32))


def with_prior(rows: Sequence[int], *, rows_of_micro: int, global_batch: int) -> list[int]:
    """The rows of each micro-step, and behind them those of their prior pictures, numbered from `global_batch` on."""
    firsts = range(0, len(rows), rows_of_micro)
    micros = [list(rows[first : first + rows_of_micro]) for first in firsts]
    return [member for micro in micros for member in (*micro, *(global_batch + row for row in micro))]

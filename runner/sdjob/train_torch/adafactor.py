"""Adafactor (arXiv 1804.04235), as the flax trainer has it too: of a matrix's squared gradients the means of rows and columns.

The formulas are those of transformers.Adafactor with scale_parameter and relative_step off, so that the job's learning rate is
the one that counts. Two things differ: a convolution's kernel is one matrix of outputs x all else, where transformers factors
each 3 x 3 by itself and keeps two thirds of AdamW's second moment; and there is no first moment.
Axes: O outputs, I what is behind the first axis.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sdjob.diffusion.adafactor import CLIP, DECAY, FLOOR


class Adafactor(torch.optim.Optimizer):
    def __init__(self, parameters: Iterable[Any], *, lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._advance(parameter, lr=group["lr"], weight_decay=group["weight_decay"])

    def _advance(self, parameter: Tensor, *, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state.update(started(parameter))
        state["step"] += 1
        update = whitened(parameter.grad, state, decay=1.0 - math.pow(float(state["step"]), DECAY))
        update.div_((update.norm(2) / (update.numel() ** 0.5 * CLIP)).clamp_(min=1.0)).mul_(lr)
        parameter.add_(parameter, alpha=-weight_decay * lr).sub_(update)


def started(parameter: Tensor) -> dict[str, Tensor]:
    slots = {"step": torch.tensor(0.0)}
    if parameter.ndim < 2:
        return slots | {"exp_avg_sq": torch.zeros_like(parameter)}
    row, col = parameter.shape[:1], parameter.shape[1:]
    return slots | {"exp_avg_sq_row": parameter.new_zeros(row), "exp_avg_sq_col": parameter.new_zeros(col)}


def whitened(gradient: Any, state: dict[str, Tensor], *, decay: float) -> Tensor:
    """The gradient over the root of its mean square, which is brought up to date in `state`."""
    squares = gradient.square() + FLOOR
    if gradient.ndim < 2:
        mean = state["exp_avg_sq"].mul_(decay).add_(squares, alpha=1.0 - decay)
        return mean.rsqrt().mul_(gradient)
    squares_OI = squares.flatten(1)
    row_O = state["exp_avg_sq_row"].mul_(decay).add_(squares_OI.mean(1), alpha=1.0 - decay)
    col_I = state["exp_avg_sq_col"].mul_(decay).add_(squares_OI.mean(0).view(gradient.shape[1:]), alpha=1.0 - decay).flatten()
    roots_OI = (row_O / row_O.mean()).rsqrt()[:, None] * col_I.rsqrt()[None, :]
    return roots_OI.view(gradient.shape).mul_(gradient)

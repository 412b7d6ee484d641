"""The learning rate as a pure function of the step: the formulas of diffusers' get_scheduler, without its state.

Source: https://github.com/huggingface/diffusers/blob/main/src/diffusers/optimization.py. `step` counts from 0.
"""

import math
from dataclasses import dataclass

POLYNOMIAL_END = 1e-7  # the last learning rate of diffusers' polynomial schedule


@dataclass(frozen=True)
class LearningRate:
    base: float
    schedule: str
    total_steps: int
    warmup_steps: int = 0
    num_cycles: int = 1
    """Hard restarts of cosine_with_restarts."""

    power: float = 1.0
    step_rules: str | None = None

    def at(self, step: int) -> float:
        if self.schedule == "constant":
            return self.base
        if self.schedule == "piecewise_constant":
            return self.base * self._piece(step)
        if step < self.warmup_steps:
            return self.base * step / max(1, self.warmup_steps)
        if self.schedule == "constant_with_warmup":
            return self.base
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self._decayed(progress)

    def _decayed(self, progress: float) -> float:
        if self.schedule == "linear":
            return self.base * max(0.0, 1.0 - progress)
        if self.schedule == "cosine":
            return self.base * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
        if self.schedule == "cosine_with_restarts":
            if progress >= 1.0:
                return 0.0
            return self.base * max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((self.num_cycles * progress) % 1.0))))
        if self.schedule == "polynomial":
            left = max(0.0, 1.0 - progress)
            return (self.base - POLYNOMIAL_END) * left**self.power + POLYNOMIAL_END
        raise ValueError(f"unknown learning-rate schedule {self.schedule!r}")

    def _piece(self, step: int) -> float:
        """`step_rules` such as "1:10,0.1:20,0.01": factor 1 before step 10, 0.1 before step 20, 0.01 from there on."""
        *rules, last = (self.step_rules or "1").split(",")
        for rule in rules:
            factor, until = rule.split(":")
            if step < int(until):
                return float(factor)
        return float(last)

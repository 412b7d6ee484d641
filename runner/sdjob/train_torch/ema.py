"""The moving average of the weights as diffusers' EMAModel has it, on the device or in the host's memory."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers.training_utils import EMAModel

from sdjob.spec.train import EmaSpec


class OffloadedAverage(EMAModel):
    """Kept on the host, pinned where there is a GPU. A step brings one average after the other to the device and back, so that
    the device holds one of them at a time and the numbers are those of an average that stays there."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], *, decay: float) -> None:
        super().__init__([torch.nn.Parameter(parameter.detach().cpu()) for parameter in parameters], decay=decay)
        if any(parameter.is_cuda for parameter in parameters):
            self.pin_memory()

    @torch.no_grad()
    def step(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self.optimization_step += 1
        self.cur_decay_value = self.get_decay(self.optimization_step)
        for average, parameter in zip(self.shadow_params, parameters, strict=True):
            there = average.to(parameter.device, non_blocking=True)
            there.sub_((1 - self.cur_decay_value) * (there - parameter))
            average.copy_(there, non_blocking=True)


def build_average(spec: EmaSpec, parameters: Iterable[torch.nn.Parameter]) -> EMAModel:
    """Begins at the parameters' present values."""
    trained: Any = list(parameters)
    return OffloadedAverage(trained, decay=spec.decay) if spec.offload else EMAModel(trained, decay=spec.decay)

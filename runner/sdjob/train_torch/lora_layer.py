"""A linear layer with its LoRA, y = W x + b + s B A x, as one function with a backward pass of its own.

peft's layer makes s B A x a tensor of its own, multiplies it by s and adds it, and the backward pass does the same in reverse.
Here s is a factor of the small products, and sums are made by products that add to what is there.

Axes: N rows (pictures x positions), I inputs, O outputs, R the rank.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor


class Adapted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x_NI, weight_OI, bias_O, A_RI, B_OR, s = inputs
        low_NR = x_NI @ A_RI.t()
        ctx.s = s
        ctx.save_for_backward(x_NI, weight_OI, A_RI, B_OR, low_NR)
        return torch.nn.functional.linear(x_NI, weight_OI, bias_O).addmm_(low_NR, B_OR.t(), alpha=s)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_NO,) = grads
        x_NI, weight_OI, A_RI, B_OR, low_NR = ctx.saved_tensors
        low_grad_NR = (grad_NO @ B_OR).mul_(ctx.s)
        x_grad = (grad_NO @ weight_OI).addmm_(low_grad_NR, A_RI) if ctx.needs_input_grad[0] else None
        return x_grad, None, None, low_grad_NR.t() @ x_NI, (grad_NO.t() @ low_NR).mul_(ctx.s), None


class AdaptedLinear(Linear):
    """peft's layer, which also keeps the names and all other uses."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or self.disable_adapters or self.merged or torch.is_autocast_enabled(x.device.type):
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        base: Any = self.base_layer
        rows = x.reshape(-1, x.shape[-1])
        y = Adapted.apply(rows, base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name])
        return y.view(*x.shape[:-1], -1)


def fuse(model: torch.nn.Module) -> None:
    """Every layer of the model's that is a linear one with a plain LoRA, all in float32."""
    for module in model.modules():
        if type(module) is Linear and is_plain(module):
            module.__class__ = AdaptedLinear


def is_plain(layer: Linear) -> bool:
    """One adapter, nothing dropped from its input, no other arithmetic (DoRA)."""
    names, base = layer.active_adapters, layer.get_base_layer()
    if type(base) is not torch.nn.Linear or len(names) != 1 or layer.lora_variant or layer.fan_in_fan_out:
        return False
    low, high = layer.lora_A[names[0]], layer.lora_B[names[0]]
    plain = isinstance(layer.lora_dropout[names[0]], torch.nn.Identity) and low.bias is None and high.bias is None
    return plain and {p.dtype for p in (base.weight, low.weight, high.weight)} == {torch.float32}

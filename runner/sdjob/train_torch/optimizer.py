"""The optimizers of the torch trainer, and what each has to keep: which tensors and which numbers, under which names."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import torch

from sdjob.spec.train import OptimizerSpec
from sdjob.train_torch.adafactor import Adafactor

Parameters = Mapping[str, torch.nn.Parameter]

# Names in a checkpoint, behind `optimizer.` -> names in any optimizer's own state of a parameter.
SLOTS = {
    "m": ("exp_avg", "state1"),
    "v": ("exp_avg_sq", "state2"),
    "row": ("exp_avg_sq_row",),
    "col": ("exp_avg_sq_col",),
    "s": ("s",),
    "p0": ("p0",),
    "m_absmax": ("absmax1",),
    "v_absmax": ("absmax2",),
}
FACTOR = "rate_factor"  # a group's, of the job's learning rate
# What Prodigy keeps beside the tensors (https://github.com/konstmish/prodigy); all groups have the same.
SCALARS = ("d", "d_max", "d_numerator", "k")


def build_optimizer(
    spec: OptimizerSpec, parameters: Parameters, *, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """`factors` multiply the learning rate, by name. The parent has seen to it that device and packages are there."""
    given = groups_of(parameters, factors=factors or {})
    common: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    moments: dict[str, Any] = {"betas": spec.betas, "eps": spec.epsilon}
    match spec.name:
        case "adamw":
            return torch.optim.AdamW(given, **common, **moments, fused=True)
        case "adafactor":
            return Adafactor(given, **common)
        case "prodigy":
            return prodigy(given, spec=spec, options=common | moments)
        case "adamw8bit":
            return adamw8bit(given, options=common | moments)


def groups_of(parameters: Parameters, *, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(factors.get(name, 1.0), []).append(parameter)
    return [{"params": members, FACTOR: factor} for factor, members in groups.items()]


def prodigy(given: list[dict[str, Any]], *, spec: OptimizerSpec, options: dict[str, Any]) -> torch.optim.Optimizer:
    from prodigyopt import Prodigy  # noqa: PLC0415  an extra of its own

    own = spec.prodigy
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that weight decay is decoupled
        return Prodigy(
            given,
            **options,
            d0=own.d0,
            d_coef=own.d_coef,
            growth_rate=float("inf") if own.growth_rate is None else own.growth_rate,
            use_bias_correction=own.use_bias_correction,
            safeguard_warmup=own.safeguard_warmup,
        )


def adamw8bit(given: list[dict[str, Any]], *, options: dict[str, Any]) -> torch.optim.Optimizer:
    # An extra of its own, which the type checker's environment lacks.
    from bitsandbytes.optim.adamw import AdamW8bit  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    return AdamW8bit(given, **options)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """For all groups; returns the rate that is told: Prodigy multiplies the job's by its own estimate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[FACTOR]
    return rate * optimizer.param_groups[0].get("d", 1.0)


# ---- what is kept ----------------------------------------------------------------------------------------------------------


def slots_of(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
    """A parameter's tensors by their names in a checkpoint; none before its first gradient."""
    own = optimizer.state.get(parameter, {})
    return {short: own[name] for short, names in SLOTS.items() for name in names if name in own}


def count_of(optimizer: torch.optim.Optimizer) -> float:
    """Updates so far."""
    return max((float(own["step"]) for own in optimizer.state.values()), default=0.0)


def scalars_of(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    first = optimizer.param_groups[0]
    return {name: first[name] for name in SCALARS if name in first}


def fill(
    optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, kept: Mapping[str, torch.Tensor], *, count: float
) -> None:
    """A parameter's tensors and count, as `slots_of` and `count_of` gave them."""
    own = {name_in(optimizer, short): placed(tensor, like=parameter) for short, tensor in kept.items()}
    if hasattr(optimizer, "init_state"):  # bitsandbytes makes its tables of 8-bit values there
        for number, group in enumerate(optimizer.param_groups):
            for index in (i for i, member in enumerate(group["params"]) if member is parameter):
                optimizer.init_state(group, parameter, number, index)  # pyright: ignore[reportAttributeAccessIssue]
    is_tensor = isinstance(optimizer, (torch.optim.AdamW, Adafactor))
    step = torch.tensor(count, device=parameter.device if isinstance(optimizer, torch.optim.AdamW) else None)
    optimizer.state[parameter].update({"step": step if is_tensor else int(count), **own})


def name_in(optimizer: torch.optim.Optimizer, short: str) -> str:
    return SLOTS[short][-1 if hasattr(optimizer, "init_state") else 0]


def placed(tensor: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
    """A tensor of its own on the parameter's device, laid out as the parameter where it has its shape."""
    if tensor.shape != like.shape:
        return tensor.to(like.device, copy=True)
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


def fill_scalars(optimizer: torch.optim.Optimizer, scalars: Mapping[str, float]) -> None:
    for group in optimizer.param_groups:
        group.update(scalars)

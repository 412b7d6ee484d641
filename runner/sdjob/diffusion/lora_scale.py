"""What each module's LoRA has of its own: rank, alpha, learning rate. Patterns are matched as peft matches them.

https://github.com/huggingface/peft/blob/v0.21.2/src/peft/utils/other.py (get_pattern_key); sd-scripts calls rates by pattern
network_reg_lrs (https://github.com/kohya-ss/sd-scripts).
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sdjob.core.errors import UsageError
from sdjob.diffusion.names import module_of
from sdjob.spec.train import LoraSpec, TrainSpec

Value = TypeVar("Value")


@dataclass(frozen=True)
class LoraScale:
    """A LoRA adds alpha / rank times its product of matrices."""

    rank: int
    alpha: float

    @property
    def factor(self) -> float:
        return self.alpha / self.rank


def scale_of(module: str, *, lora: LoraSpec) -> LoraScale:
    """`module` as the model names it; what stands before it with a dot does not matter."""
    return LoraScale(
        rank=by_pattern(lora.rank_pattern, module, otherwise=lora.rank),
        alpha=by_pattern(lora.alpha_pattern, module, otherwise=lora.alpha),
    )


def rate_factors(names: Iterable[str], *, train: TrainSpec) -> dict[str, float]:
    """What the schedule's learning rate is multiplied with, by the parameters' names in a checkpoint."""
    if train.method != "lora" or not train.lora.learning_rate_pattern:
        return dict.fromkeys(names, 1.0)
    base, patterns = train.optimizer.learning_rate, train.lora.learning_rate_pattern
    return {name: by_pattern(patterns, module_of(name), otherwise=base) / base for name in names}


def by_pattern(patterns: Mapping[str, Value], module: str, *, otherwise: Value) -> Value:
    """The value of the first pattern that is the module's name, or its end behind a dot."""
    return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), otherwise)


def as_number(value: float) -> int | float:
    """8.0 as 8: one spelling for one value."""
    return int(value) if value == int(value) else value


def diffusers_scales(adapter: Mapping[str, Any], *, ranks: Mapping[str, int]) -> dict[str, float]:
    """alpha / rank by module, from what a file in diffusers' form says of its adapters; where that is nothing alpha is rank.

    A module's name has its part's before it, such as `unet.`.
    """
    scales: dict[str, float] = {}
    for module, rank in ranks.items():
        part = module.partition(".")[0]
        patterns, alpha = adapter.get(f"{part}.alpha_pattern", {}), adapter.get(f"{part}.lora_alpha", rank)
        scales[module] = by_pattern(patterns, module, otherwise=alpha) / rank
    return scales


def refuse_unused_patterns(names: Iterable[str], *, lora: LoraSpec) -> None:
    """UsageError (64) for a pattern that none of the modules with a LoRA matches: a slip of the pen would change nothing.

    `names` are those of all the LoRA's tensors in a checkpoint.
    """
    modules = [module_of(name) for name in names]
    for field in ("rank_pattern", "alpha_pattern", "learning_rate_pattern"):
        patterns: Mapping[str, float] = getattr(lora, field)
        for pattern in patterns:
            if not any(re.match(rf"(.*\.)?({pattern})$", module) for module in modules):
                raise UsageError(
                    f"no module with a LoRA is called {pattern!r}, such as {modules[0]} is.",
                    where=f"train.lora.{field}",
                    next_step="Patterns are regular expressions for the end of a module's name.",
                )


def refuse_other_scales(given: Mapping[str, float], *, lora: LoraSpec, file: str) -> None:
    """`given`: alpha / rank by module. The same matrices under another scale would be another function than was trained."""
    own = {module: scale_of(module, lora=lora) for module in given}
    wrong = {module: factor for module, factor in given.items() if not math.isclose(factor, own[module].factor, rel_tol=1e-6)}
    if not wrong:
        return
    module = min(wrong)
    alphas = sorted({factor * own[name].rank for name, factor in wrong.items()})
    pattern = " (with its alpha_pattern)" if lora.alpha_pattern else ""
    raise UsageError(
        f"{file} was trained with alpha {', '.join(f'{alpha:g}' for alpha in alphas)} at rank {own[module].rank}, and the job's "
        f"train.lora.alpha{pattern} is {own[module].alpha:g}.",
        where="train.init_from",
        next_step="Set train.lora.alpha to the file's own." if len(alphas) == 1 and not pattern else None,
    )

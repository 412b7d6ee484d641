"""Names of tensors in a checkpoint, and what other programs call them.

A checkpoint holds `unet.<parameter>` (full) or `unet.<module>.lora_A.weight` and `.lora_B.weight` (LoRA, as peft saves
them); moving averages stand in a file of their own as `ema.<name>`.
"""

from collections.abc import Mapping
from typing import TypeVar

from sdjob.core.errors import SdjobError

Value = TypeVar("Value")

UNET = "unet."
EMA = "ema."
LORA_DOWN = ".lora_A.weight"
LORA_UP = ".lora_B.weight"


def without_prefix(tensors: Mapping[str, Value], *, prefix: str) -> dict[str, Value]:
    """Every tensor under its name without the prefix; a name that lacks it was written by something else."""
    for name in tensors:
        if not name.startswith(prefix):
            raise SdjobError(f"the checkpoint holds the tensor {name!r}, which does not begin with {prefix!r}")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def lora_modules(tensors: Mapping[str, object]) -> list[str]:
    """The UNet's modules that have a LoRA, sorted; each must have both of its matrices."""
    names = without_prefix(tensors, prefix=UNET)
    downs = {name.removesuffix(LORA_DOWN) for name in names if name.endswith(LORA_DOWN)}
    ups = {name.removesuffix(LORA_UP) for name in names if name.endswith(LORA_UP)}
    strange = [name for name in names if not name.endswith((LORA_DOWN, LORA_UP))]
    if strange or downs != ups:
        odd = sorted([*strange, *(downs ^ ups)])[0]
        raise SdjobError(f"the checkpoint's LoRA is not made of pairs of lora_A and lora_B: see {odd!r}")
    return sorted(downs)


def kohya_module(module: str) -> str:
    """`down_blocks.0.attentions.0` of the UNet in the spelling of kohya's sd-scripts, which ComfyUI and A1111 read."""
    return "lora_unet_" + module.replace(".", "_")

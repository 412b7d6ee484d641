"""Names of tensors in a checkpoint, and what other programs call them.

A checkpoint holds `unet.<parameter>` (full) or `unet.<module>.lora_A.weight` and `.lora_B.weight` (LoRA, as peft saves
them; of DoRA `.lora_magnitude_vector` too), and the same behind `text_encoder.` and `text_encoder_2.` where these are trained;
moving averages stand in a file of their own as `ema.<name>`.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from sdjob.core.errors import SdjobError, UsageError

Value = TypeVar("Value")

UNET = "unet."
EMA = "ema."
# What may be trained, by the names of its folders; in a checkpoint a dot follows.
TRAINED_PARTS = ("text_encoder", "text_encoder_2", "unet")
LORA_DOWN = ".lora_A.weight"
LORA_UP = ".lora_B.weight"
DORA_MAGNITUDE = ".lora_magnitude_vector"


def without_prefix(tensors: Mapping[str, Value], *, prefix: str) -> dict[str, Value]:
    """Every tensor under its name without the prefix; a name that lacks it was written by something else."""
    for name in tensors:
        if not name.startswith(prefix):
            raise SdjobError(f"the checkpoint holds the tensor {name!r}, which does not begin with {prefix!r}")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def module_of(name: str) -> str:
    """The module that a LoRA's tensor belongs to, without its part's name."""
    return name.partition(".")[2].partition(".lora_")[0]


def by_part(tensors: Mapping[str, Value], *, given: str | None = None) -> dict[str, dict[str, Value]]:
    """The tensors of each trained part, without its name before theirs; `given` names the user's file, if it is one.

    A name of no part was written by something else.
    """
    parts: dict[str, dict[str, Value]] = {}
    for name, tensor in tensors.items():
        part, _, own = name.partition(".")
        if part not in TRAINED_PARTS:
            what = f"holds the tensor {name!r}, which begins with none of {', '.join(TRAINED_PARTS)}"
            raise UsageError(f"{given} {what}", where="train.init_from") if given else SdjobError(f"the checkpoint {what}")
        parts.setdefault(part, {})[own] = tensor
    return dict(sorted(parts.items()))


def lora_modules(names: Iterable[str]) -> list[str]:
    """One part's modules that have a LoRA, sorted; each must have both of its matrices, and of a DoRA its magnitudes.

    Names without the part's.
    """
    names = list(names)
    downs = {name.removesuffix(LORA_DOWN) for name in names if name.endswith(LORA_DOWN)}
    ups = {name.removesuffix(LORA_UP) for name in names if name.endswith(LORA_UP)}
    sizes = {name.removesuffix(DORA_MAGNITUDE) for name in names if name.endswith(DORA_MAGNITUDE)}
    strange = [name for name in names if not name.endswith((LORA_DOWN, LORA_UP, DORA_MAGNITUDE))]
    odd = sorted([*strange, *(downs ^ ups), *(downs ^ sizes if sizes else ())])
    if odd:
        raise SdjobError(f"the checkpoint's LoRA is not made of pairs of lora_A and lora_B: see {odd[0]!r}")
    return sorted(downs)


def refuse_other_layers(own: Iterable[str], given: Iterable[str], *, file: str) -> None:
    """A LoRA to start from must have the job's layers and no others: none is left at its draw, none is dropped."""
    missing, extra = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    if not missing and not extra:
        return
    texts_alone = all(name.startswith("text_encoder") for name in missing + extra) and not (missing and extra)
    raise UsageError(
        f"{file} and the job's {'train.text_encoder' if texts_alone else 'train.lora.targets'} name different layers: "
        f"{len(missing)} missing, {len(extra)} too many (such as {(missing or extra)[0]})",
        where="train.init_from",
        next_step=f"Set train.text_encoder to {'lora' if extra else 'frozen'}." if texts_alone else None,
    )


def kohya_prefix(part: str, *, encoders: int) -> str:
    """What kohya's sd-scripts, and so ComfyUI and A1111, have before a part's modules: a lone text encoder has no number."""
    if part == "unet":
        return "lora_unet_"
    return "lora_te_" if encoders == 1 else {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}[part]


def kohya_module(module: str, *, prefix: str = "lora_unet_") -> str:
    """`down_blocks.0.attentions.0` of the UNet in kohya's spelling."""
    return prefix + module.replace(".", "_")

"""Which files of a diffusers model folder are used, by their names alone: the same answer for a folder, a bucket and the Hub.

Names are paths below the model's folder, with forward slashes. Only safetensors are read: a pickle may run code.
"""

import posixpath
from collections.abc import Collection, Iterator
from typing import Literal

from sdjob.core.errors import MissingError

Method = Literal["lora", "full"]

MODEL_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
WEIGHT_PARTS = ("unet", "vae", "text_encoder")
# Of SDXL; its index says too how an empty caption is encoded.
SECOND_PARTS = ("text_encoder_2", "tokenizer_2")
SECOND_WEIGHTS = ("text_encoder_2",)
INDEX = "model_index.json"
PLAIN_SUFFIXES = (".json", ".txt", ".model")
SAFE = ".safetensors"
FROM_ONE_FILE = (
    "Of a checkpoint in one file diffusers writes such a folder: "
    "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)."
)
NAME_THE_FILE = "Of a model in one file name that file: behind the path of its folder or bucket, or in model.file."
UNREAD_SUFFIXES = (".bin", ".ckpt", ".msgpack", SAFE)


def training_files(names: Collection[str], *, variant: str | None, where: str, field: str = "model.source") -> list[str]:
    """What training reads: MissingError (66) where it is not all there. `where` names the folder in messages."""
    if INDEX not in names:
        loose = sorted(name for name in names if "/" not in name and name.endswith(UNREAD_SUFFIXES))
        raise _no_model(loose, where=where, field=field)
    return sorted(_used(names, variant=variant, where=where, field=field))


def _no_model(loose: list[str], *, where: str, field: str) -> MissingError:
    there = f" (it holds {', '.join(loose[:3])})" if loose else ""
    step = FROM_ONE_FILE if loose else "Check the place; of a model on the Hub take its whole folder."
    if any(name.endswith(SAFE) for name in loose):
        step = NAME_THE_FILE
    return MissingError(
        f"{where} has no {INDEX}: it is no model folder in diffusers' layout{there}.", where=field, next_step=step
    )


def config_files(names: Collection[str], *, where: str, field: str) -> list[str]:
    """What of a model's folder is not weights: MissingError (66) where it is none."""
    parts = {*MODEL_PARTS, *SECOND_PARTS}
    chosen = [INDEX, *(name for name in names if posixpath.dirname(name) in parts and _is_config(name))]
    if INDEX not in names or "unet/config.json" not in chosen:
        raise MissingError(f"{where} is no model folder in diffusers' layout.", where=field, next_step="Take its whole folder.")
    return sorted(chosen)


def _is_config(name: str) -> bool:
    return name.endswith(PLAIN_SUFFIXES) and ".index." not in name


def fetched_files(names: Collection[str], *, variant: str | None, method: Method, where: str) -> list[str]:
    """What is brought from a distant place: what training reads, the index, card and licence, and for a full model, whose
    whole pipeline is published, its other parts too."""
    chosen = {*training_files(names, variant=variant, where=where), INDEX}
    chosen |= {name for name in names if "/" not in name and (name == "README.md" or name.startswith("LICENSE"))}
    if method == "full":
        chosen |= set(_other_parts(names, variant=variant))
    return sorted(chosen)


def weight_files(names: Collection[str], *, part: str, ending: str, where: str, field: str) -> list[str]:
    """The weights of one part (a folder's name, empty for the folder itself) that have this ending."""
    there = _of_part(names, part)
    found = [name for name in there if _ends_so(posixpath.basename(name), ending)]
    if found:
        return found
    others = sorted(posixpath.basename(name) for name in there if name.endswith(UNREAD_SUFFIXES))
    holds = f" (it holds {', '.join(others)})" if others else ""
    folder = f"{where}/{part}" if part else where
    raise MissingError(f"{folder} holds no weights that end in {ending}{holds}.", where=field, next_step=_way_out(others))


def _used(names: Collection[str], *, variant: str | None, where: str, field: str) -> Iterator[str]:
    second = is_second(names)
    yield from [INDEX] if second else []
    for part in (*MODEL_PARTS, *(SECOND_PARTS if second else ())):
        plain = [name for name in _of_part(names, part) if name.endswith(PLAIN_SUFFIXES)]
        if not plain:
            raise MissingError(
                f"{where} has no {part}/ with its configuration: it is no whole model folder in diffusers' layout.",
                where=field,
                next_step="Take all of the model's folder, as save_pretrained writes it.",
            )
        yield from plain
    ending = f".{variant}{SAFE}" if variant else SAFE
    for part in (*WEIGHT_PARTS, *(SECOND_WEIGHTS if second else ())):
        yield from weight_files(names, part=part, ending=ending, where=where, field=field)


def is_second(names: Collection[str]) -> bool:
    """Whether there are two text encoders: SDXL's mark among the models of this layout."""
    return any(name.startswith("text_encoder_2/") for name in names)


def _other_parts(names: Collection[str], *, variant: str | None) -> Iterator[str]:
    """The safety checker and the like: their plain files, and their safetensors of the variant, else those without one."""
    for part in {name.partition("/")[0] for name in names if name.count("/") == 1} - {
        *MODEL_PARTS,
        *(SECOND_PARTS if is_second(names) else ()),
    }:
        there = _of_part(names, part)
        of_variant = [name for name in there if variant and name.endswith(f".{variant}{SAFE}")]
        yield from of_variant or [name for name in there if _ends_so(posixpath.basename(name), SAFE)]
        yield from (name for name in there if name.endswith(PLAIN_SUFFIXES))


def _of_part(names: Collection[str], part: str) -> list[str]:
    return [name for name in names if posixpath.dirname(name) == part]


def _ends_so(name: str, ending: str) -> bool:
    """`x.safetensors` ends in .safetensors, and so does a shard of it; `x.fp16.safetensors` is another variant."""
    return name.endswith(ending) and (name.count(".") == ending.count(".") or "-of-" in name)


def _way_out(others: list[str]) -> str:
    if any(name.endswith(SAFE) for name in others):
        return "Set model.variant to what the names there have before .safetensors; to null where they have nothing."
    if any(name.endswith(".msgpack") for name in others):
        return (
            "Only safetensors are read, and these are Flax weights: load them with diffusers before 0.40 (from_flax=True) and "
            "save them with save_pretrained."
        )
    return (
        "Only safetensors are read, since a pickle may run code: convert the weights first (diffusers' from_pretrained and "
        "save_pretrained), or set model.revision to one that has them."
    )

"""What the UNet is told beside the noisy latents: captions as the family's text encoders see them, and for SDXL sizes and crop.

Axes: B pictures, E text encoders, T tokens, D features of all encoders side by side, P features of the pooled text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from numpy.typing import NDArray

from sdjob.diffusion.family import Family, read_base_model
from sdjob.diffusion.text_encoders import (
    LORA_TARGETS,
    TEXT_PARTS,
    TOKENIZERS,
    checkpoint_name,
    reaches_unet,
    spelled,
    zeroes_empty_captions,
)
from sdjob.spec.train import TrainSpec
from sdjob.train_flax.lora import adaptable_layers, add_lora
from sdjob.train_flax.models import names
from sdjob.train_flax.models.clip_text import CLIPTextModel, CLIPTextModelWithProjection
from sdjob.train_flax.models.folder import Put, read_text_encoder, read_text_encoder_with_projection
from sdjob.train_flax.models.layers import Compute, LoraParam
from sdjob.train_flax.models.unet import AddedConditions
from sdjob.train_flax.tokens import CaptionTokenizer

TextModel = CLIPTextModel | CLIPTextModelWithProjection
Named = dict[str, tuple[names.Path, nnx.Variable[Any]]]
READERS = {"text_encoder": read_text_encoder, "text_encoder_2": read_text_encoder_with_projection}


@dataclass(frozen=True)
class Tokenizers:
    parts: tuple[CaptionTokenizer, ...]
    """One for each text encoder."""

    @classmethod
    def of(cls, model: Path) -> Self:
        folders = [TOKENIZERS[part] for part in TEXT_PARTS[read_base_model(model).family]]
        return cls(tuple(CaptionTokenizer.of(model / folder) for folder in folders))

    def arrays(self, captions: Sequence[str]) -> dict[str, NDArray[Any]]:
        """What `encoded_captions` takes; `told_B` is 0 where the caption is empty, else 1."""
        ids_BET = np.stack([tokenizer.ids(captions) for tokenizer in self.parts], axis=1)
        return {"ids_BET": ids_BET, "told_B": np.array([bool(caption) for caption in captions], np.float32)}


@dataclass(frozen=True)
class TextTraits:
    """What is done with the encoders, beside their weights."""

    family: Family
    zeroes_empty: bool
    training: Literal["frozen", "lora", "full"]

    @property
    def parts(self) -> tuple[str, ...]:
        return TEXT_PARTS[self.family]


@dataclass(frozen=True)
class TextEncoders:
    parts: dict[str, TextModel]
    """By the names of their folders, in the order in which the UNet gets their features."""

    traits: TextTraits

    @property
    def max_tokens(self) -> int:
        return next(iter(self.parts.values())).config.max_tokens

    def trained(self) -> Named:
        """(path, variable) of the parameters that are trained, by their names in a checkpoint."""
        if self.traits.training == "frozen":
            return {}
        kind: Any = LoraParam if self.traits.training == "lora" else nnx.Param
        found = ((part, model, names.parameters_of(model, kind)) for part, model in self.parts.items())
        return {
            checkpoint_name(part, name): at
            for part, model, own in found
            for name, at in own.items()
            if reaches(name, part=part, model=model, family=self.traits.family)
        }


def reaches(name: str, *, part: str, model: TextModel, family: Family) -> bool:
    return reaches_unet(spelled(name), part=part, family=family, num_layers=model.config.num_layers)


def encoded_captions(models: Sequence[TextModel], captions: Mapping[str, Array], *, traits: TextTraits) -> dict[str, Array]:
    """`states_BTD`, and of SDXL `pooled_BP` of its second encoder."""
    ids_BET, told_B = captions["ids_BET"], captions["told_B"]
    outputs = [model(ids_BET[:, number]) for number, model in enumerate(models)]
    if traits.family != "sdxl":
        encoded = {"states_BTD": outputs[0].last_BTD}
    else:
        states_BTD = jnp.concatenate([output.layers[-2] for output in outputs], axis=-1)
        pooled_BP = outputs[-1].pooled_BD
        if traits.zeroes_empty:
            told_B = told_B.astype(pooled_BP.dtype)
            states_BTD, pooled_BP = states_BTD * told_B[:, None, None], pooled_BP * told_B[:, None]
        encoded = {"states_BTD": states_BTD, "pooled_BP": pooled_BP}
    if traits.training == "frozen":
        return {name: lax.stop_gradient(values) for name, values in encoded.items()}
    return encoded


def added_conditions(encoded: Mapping[str, Array], time_ids_B6: Array) -> AddedConditions | None:
    return AddedConditions(encoded["pooled_BP"], time_ids_B6) if "pooled_BP" in encoded else None


# ---- building --------------------------------------------------------------------------------------------------------------


def text_traits(model: Path, *, training: Literal["frozen", "lora", "full"]) -> TextTraits:
    family = read_base_model(model).family
    return TextTraits(family, zeroes_empty_captions(model, family=family), training)


def read_text_encoders(
    model: Path, *, train: TrainSpec, compute: Compute, variant: str | None, put: Put | None, put_trained: Put | None
) -> TextEncoders:
    """In the compute precision; what is trained in full as float32 masters. Without a `put` as shapes alone."""
    traits = text_traits(model, training=train.text_encoder)
    if train.text_encoder != "frozen":
        compute = replace(compute, remat=bool(train.gradient_checkpointing))
    if train.text_encoder == "full":
        compute, put = replace(compute, param_dtype=jnp.float32), put_trained
    parts = {part: READERS[part](model / part, compute=compute, variant=variant, put=put) for part in traits.parts}
    return TextEncoders(parts, traits)


def no_text_encoders(model: Path, *, train: TrainSpec) -> TextEncoders:
    """Where they have run before the training."""
    return TextEncoders({}, text_traits(model, training=train.text_encoder))


def read_drawing_encoders(model: Path, *, compute: Compute) -> TextEncoders:
    """To draw with: nothing of them is trained any more."""
    traits = text_traits(model, training="frozen")
    return TextEncoders({part: READERS[part](model / part, compute=compute) for part in traits.parts}, traits)


def add_text_lora(text: TextEncoders, *, train: TrainSpec, put: Put) -> None:
    for part, model in text.parts.items():
        layers = [name for name in adaptable_layers(model) if name.endswith(LORA_TARGETS)]
        own = tuple(name for name in layers if reaches(name, part=part, model=model, family=text.traits.family))
        add_lora(model, spec=train.lora.model_copy(update={"targets": own}), seed=train.seed, put=put, part=part)

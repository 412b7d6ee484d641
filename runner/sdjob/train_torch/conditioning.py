"""What the UNet is told beside the noisy latents: captions as the family's text encoders see them, and for SDXL sizes and crop.

Axes: B pictures, E text encoders, T tokens, D features of all encoders side by side, P features of the pooled text.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sdjob.diffusion.family import Family, read_base_model
from sdjob.diffusion.lora_scale import scale_of
from sdjob.diffusion.text_encoders import (
    LORA_TARGETS,
    TEXT_PARTS,
    TOKENIZERS,
    checkpoint_name,
    reaches_unet,
    spelled,
    zeroes_empty_captions,
)
from sdjob.spec.train import LoraSpec, TrainSpec
from sdjob.train_torch.loading import model_errors
from sdjob.train_torch.lora import add_lora, lora_parameters

TextModel = CLIPTextModel | CLIPTextModelWithProjection
CLASSES: dict[str, type[TextModel]] = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


@dataclass(frozen=True)
class Tokenizers:
    parts: tuple[CLIPTokenizer, ...]
    """One for each text encoder."""

    @classmethod
    def of(cls, model: Path) -> Self:
        folders = [TOKENIZERS[part] for part in TEXT_PARTS[read_base_model(model).family]]
        with model_errors(model):
            return cls(tuple(CLIPTokenizer.from_pretrained(model, subfolder=folder) for folder in folders))

    def ids(self, captions: Sequence[str]) -> Tensor:
        """(B, E, T) int64; what is longer than the model's T tokens is cut off."""
        return torch.stack([token_ids(tokenizer, captions) for tokenizer in self.parts], dim=1)

    def tensors(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """What TextEncoders.encode takes."""
        return {"ids_BET": self.ids(captions), "told_B": torch.tensor([float(bool(caption)) for caption in captions])}


def token_ids(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """(B, T)"""
    encoded = tokenizer(
        list(captions),
        max_length=tokenizer.model_max_length,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    return encoded.input_ids


@dataclass(frozen=True)
class TextEncoders:
    parts: dict[str, TextModel]
    """By the names of their folders, in the order in which the UNet gets their features."""

    family: Family
    zeroes_empty: bool
    training: Literal["frozen", "lora", "full"]

    def encode(self, ids_BET: Tensor, *, told_B: Tensor) -> dict[str, Tensor]:
        """`states_BTD`, and of SDXL `pooled_BP` of its second encoder; `told_B` is 0 where the caption is empty, else 1."""
        with torch.no_grad() if self.training == "frozen" else nullcontext():
            if self.family != "sdxl":
                (encoder,) = self.parts.values()
                return {"states_BTD": encoder(ids_BET[:, 0]).last_hidden_state}
            outputs = [e(ids, output_hidden_states=True) for e, ids in zip(self.parts.values(), ids_BET.unbind(1), strict=True)]
            states_BTD = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
            pooled_BP: Tensor = outputs[-1].text_embeds
            if self.zeroes_empty:
                told_B = told_B.to(pooled_BP.dtype)
                states_BTD, pooled_BP = states_BTD * told_B[:, None, None], pooled_BP * told_B[:, None]
            return {"states_BTD": states_BTD, "pooled_BP": pooled_BP}

    def to(self, device: torch.device) -> Self:
        for model in self.parts.values():
            model.to(device)  # pyright: ignore[reportArgumentType] (transformers annotates a wrapper)
        return self

    def train(self, mode: bool) -> None:
        """Dropout of LoRA layers, and checkpointing, in encoders that are trained."""
        for model in self.parts.values():
            model.train(mode and self.training != "frozen")

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trained ones by their names in a checkpoint."""
        return {name: parameter for part in self.parts for name, parameter in self._of_part(part)}

    def _of_part(self, part: str) -> Iterator[tuple[str, torch.nn.Parameter]]:
        model = self.parts[part]
        if self.training == "lora":
            yield from lora_parameters(model, part=part).items()
        elif self.training == "full":
            yield from ((checkpoint_name(part, n), p) for n, p in model.named_parameters() if p.requires_grad)


def added_conditions(told: Mapping[str, Tensor], time_ids_B6: Tensor) -> dict[str, Tensor] | None:
    """UNet2DConditionModel's `added_cond_kwargs`."""
    return {"text_embeds": told["pooled_BP"], "time_ids": time_ids_B6} if "pooled_BP" in told else None


# ---- building ------------------------------------------------------------------------------------------------------------


def read_text_encoders(model: Path, *, train: TrainSpec, variant: str | None, compute: torch.dtype) -> TextEncoders:
    """In the compute precision; what is trained in full as float32 masters."""
    family, training = read_base_model(model).family, train.text_encoder
    options: dict[str, Any] = {"use_safetensors": True, "variant": variant}
    dtype = torch.float32 if training == "full" else compute
    with model_errors(model):
        parts = {
            part: CLASSES[part].from_pretrained(model, subfolder=part, dtype=dtype, **options) for part in TEXT_PARTS[family]
        }
    zeroes = zeroes_empty_captions(model, family=family)
    for part, encoder in parts.items():
        prepare(encoder, part=part, family=family, train=train)
    text = TextEncoders(parts, family, zeroes, training)
    text.train(True)
    return text


def no_text_encoders(model: Path, *, train: TrainSpec) -> TextEncoders:
    """Where they have run before the training."""
    family = read_base_model(model).family
    return TextEncoders({}, family, zeroes_empty_captions(model, family=family), train.text_encoder)


def prepare(encoder: TextModel, *, part: str, family: Family, train: TrainSpec) -> None:
    def reaches(name: str) -> bool:
        return reaches_unet(spelled(name), part=part, family=family, num_layers=encoder.config.num_hidden_layers)

    encoder.requires_grad_(False)
    if train.text_encoder == "lora":
        layers = [name for name, _ in encoder.named_modules() if name.endswith(LORA_TARGETS) and reaches(name)]
        add_lora(encoder, spec=of_layers(layers, lora=train.lora), seed=train.seed, part=part)
    elif train.text_encoder == "full":
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(reaches(name))
    if train.gradient_checkpointing and train.text_encoder != "frozen":
        encoder.activation_checkpointing_enable()


def of_layers(layers: Sequence[str], *, lora: LoraSpec) -> LoraSpec:
    """Targets and patterns by the layers' names in memory: the job's patterns are for names as files have them."""
    scales = {layer: scale_of(spelled(layer), lora=lora) for layer in layers}
    ranks, alphas = ({layer: getattr(scale, field) for layer, scale in scales.items()} for field in ("rank", "alpha"))
    return lora.model_copy(update={"targets": tuple(layers), "rank_pattern": ranks, "alpha_pattern": alphas})

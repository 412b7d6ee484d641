"""The models' configurations, read from a folder's config.json: what is understood, and every other option refused by name.

An option that is absent has the default of diffusers' or transformers' constructor:
https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/models/unets/unet_2d_condition.py
https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/models/autoencoders/autoencoder_kl.py
https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/clip/configuration_clip.py
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from sdjob.core.errors import UsageError
from sdjob.diffusion.family import read_config

SILU = ("silu", "swish")  # two names of one function
CONFIG = "config.json"


@dataclass
class Options:
    """The options of a config.json as they are asked for; at the end none may be left."""

    given: Mapping[str, Any]
    where: str
    _known: set[str] = field(default_factory=set)
    _faults: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> Self:
        return cls(read_config(path), where=str(path))

    def take(self, name: str, default: Any) -> Any:
        self._known.add(name)
        return self.given.get(name, default)

    def number(self, name: str, default: float) -> Any:
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._faults.append(f"{name} is {value!r}; it must be a number")
            return default
        return value

    def only(self, name: str, *allowed: Any, default: Any = None) -> Any:
        """An option of which only some values are supported."""
        value = self.take(name, default)
        if value not in allowed:
            self._faults.append(f"{name} is {value!r}; supported: {', '.join(map(repr, allowed))}")
        return value

    def sequence(self, name: str, default: tuple[Any, ...], *, allowed: tuple[str, ...] = ()) -> tuple[Any, ...]:
        values = tuple(self.take(name, default))
        strange = [value for value in values if allowed and value not in allowed]
        if strange:
            self._faults.append(f"{name} has {strange[0]!r}; supported: {', '.join(allowed)}")
        return values

    def per_block(self, name: str, default: int, *, num_blocks: int) -> tuple[int, ...]:
        """One whole number for all blocks, or a list of one each."""
        value = self.take(name, default)
        values = tuple(value) if isinstance(value, list | tuple) else (value,) * num_blocks
        if len(values) != num_blocks or any(isinstance(v, bool) or not isinstance(v, int) for v in values):
            self._faults.append(f"{name} is {value!r}; it must be a whole number, or {num_blocks} of them")
            return (default,) * num_blocks
        return values

    def ignore(self, *names: str) -> None:
        """Options that change nothing of what the model computes."""
        self._known.update(names)

    def finish(self) -> None:
        unknown = [name for name in self.given if name not in self._known and not name.startswith("_")]
        faults = [*self._faults, *(f"{name} is {self.given[name]!r}; this option is not known" for name in sorted(unknown))]
        if faults:
            raise UsageError(
                "the flax backend has no model of this configuration:\n" + "".join(f"  {fault}\n" for fault in faults),
                where=self.where,
                next_step="Use backend torch for this model.",
            )


# ---- UNet2DConditionModel ------------------------------------------------------------------------------------------------

ATTENDING = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
DOWN_BLOCKS = (ATTENDING[0], "DownBlock2D")
UP_BLOCKS = (ATTENDING[1], "UpBlock2D")


@dataclass(frozen=True)
class TextTime:
    """SDXL's second conditioning: the pooled text and six numbers about the picture's size and crop."""

    time_width: int
    """Features of each number's sinusoids."""

    num_inputs: int
    """Of the embedding: 6 * time_width + the pooled text's features."""


@dataclass(frozen=True)
class UNetConfig:
    """Tuples have one entry a level, from full resolution down."""

    in_channels: int
    out_channels: int
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    down_attends: tuple[bool, ...]
    up_attends: tuple[bool, ...]
    """In the order of the up blocks: from the lowest resolution up."""

    has_mid_block: bool
    num_heads: tuple[int, ...]
    text_widths: tuple[int, ...]
    depths: tuple[int, ...]
    """Transformer blocks behind each resnet."""

    linear_projection: bool
    num_groups: int
    epsilon: float
    flip_sin_to_cos: bool
    freq_shift: float
    text_time: TextTime | None

    @classmethod
    def read(cls, path: Path) -> Self:
        options = Options.of(path)
        widths = options.sequence("block_out_channels", (320, 640, 1280, 1280))
        levels = len(widths)
        down = options.sequence("down_block_types", (ATTENDING[0],) * 3 + ("DownBlock2D",), allowed=DOWN_BLOCKS)
        up = options.sequence("up_block_types", ("UpBlock2D",) + (ATTENDING[1],) * 3, allowed=UP_BLOCKS)
        config = cls(
            in_channels=options.number("in_channels", 4),
            out_channels=options.number("out_channels", 4),
            widths=widths,
            layers=options.per_block("layers_per_block", 2, num_blocks=levels),
            down_attends=tuple(kind in ATTENDING for kind in down),
            up_attends=tuple(kind in ATTENDING for kind in up),
            has_mid_block=options.only("mid_block_type", MID_BLOCK, None, default=MID_BLOCK) is not None,
            # A misnomer that diffusers keeps: https://github.com/huggingface/diffusers/issues/2011#issuecomment-1547958131
            num_heads=options.per_block("attention_head_dim", 8, num_blocks=levels),
            text_widths=options.per_block("cross_attention_dim", 1280, num_blocks=levels),
            depths=options.per_block("transformer_layers_per_block", 1, num_blocks=levels),
            linear_projection=bool(options.only("use_linear_projection", True, False, default=False)),
            num_groups=options.number("norm_num_groups", 32),
            epsilon=options.number("norm_eps", 1e-5),
            flip_sin_to_cos=bool(options.only("flip_sin_to_cos", True, False, default=True)),
            freq_shift=options.number("freq_shift", 0),
            text_time=_text_time(options),
        )
        _refuse_unet_variants(options)
        options.finish()
        return config


MID_BLOCK = "UNetMidBlock2DCrossAttn"
# Options of which the one value is supported that Stable Diffusion has.
UNET_CONSTANTS: dict[str, Any] = {
    "center_input_sample": False, "class_embed_type": None, "class_embeddings_concat": False, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "cross_attention_norm": None, "downsample_padding": 1, "dropout": 0.0, "dual_cross_attention": False,
    "encoder_hid_dim": None, "encoder_hid_dim_type": None, "attention_type": "default", "mid_block_scale_factor": 1,
    "num_attention_heads": None, "num_class_embeds": None, "only_cross_attention": False, "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False, "resnet_time_scale_shift": "default", "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None, "time_embedding_act_fn": None, "time_embedding_dim": None, "time_embedding_type": "positional",
    "timestep_post_act": None,
}  # fmt: skip


def _refuse_unet_variants(options: Options) -> None:
    for name, value in UNET_CONSTANTS.items():
        options.only(name, value, default=value)
    options.only("act_fn", *SILU, default="silu")
    options.only("mid_block_only_cross_attention", None, False)
    # The softmax is in float32 with or without upcast_attention; the number of heads is of another embedding's kind.
    options.ignore("sample_size", "upcast_attention", "addition_embed_type_num_heads")


def _text_time(options: Options) -> TextTime | None:
    kind = options.only("addition_embed_type", None, "text_time")
    if kind is None:
        options.only("addition_time_embed_dim", None)
        options.only("projection_class_embeddings_input_dim", None)
        return None
    return TextTime(options.number("addition_time_embed_dim", 0), options.number("projection_class_embeddings_input_dim", 0))


# ---- AutoencoderKL -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VaeConfig:
    in_channels: int
    out_channels: int
    latent_channels: int
    widths: tuple[int, ...]
    layers: int
    num_groups: int
    quant_conv: bool
    post_quant_conv: bool
    mid_attention: bool
    scaling_factor: float
    """Latents are multiplied by it before the UNet sees them: the caller's."""

    force_upcast: bool
    """Whether float16 overflows in it: the caller's too."""

    @property
    def downscaling(self) -> int:
        """Pixels to a latent, along each side."""
        return 2 ** (len(self.widths) - 1)

    @classmethod
    def read(cls, path: Path) -> Self:
        options = Options.of(path)
        options.sequence("down_block_types", ("DownEncoderBlock2D",), allowed=("DownEncoderBlock2D",))
        options.sequence("up_block_types", ("UpDecoderBlock2D",), allowed=("UpDecoderBlock2D",))
        config = cls(
            in_channels=options.number("in_channels", 3),
            out_channels=options.number("out_channels", 3),
            latent_channels=options.number("latent_channels", 4),
            widths=options.sequence("block_out_channels", (64,)),
            layers=options.number("layers_per_block", 1),
            num_groups=options.number("norm_num_groups", 32),
            quant_conv=bool(options.only("use_quant_conv", True, False, default=True)),
            post_quant_conv=bool(options.only("use_post_quant_conv", True, False, default=True)),
            mid_attention=bool(options.only("mid_block_add_attention", True, False, default=True)),
            scaling_factor=options.number("scaling_factor", 0.18215),
            force_upcast=bool(options.take("force_upcast", True)),
        )
        options.only("act_fn", *SILU, default="silu")
        for name in ("shift_factor", "latents_mean", "latents_std"):
            options.only(name, None)
        options.ignore("sample_size")
        options.finish()
        return config


# ---- CLIPTextModel -------------------------------------------------------------------------------------------------------

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class TextConfig:
    num_ids: int
    width: int
    hidden_width: int
    num_layers: int
    num_heads: int
    max_tokens: int
    activation: Activation
    epsilon: float
    eos_id: int
    projection_width: int

    @classmethod
    def read(cls, path: Path) -> Self:
        options = Options.of(path)
        config = cls(
            num_ids=options.number("vocab_size", 49408),
            width=options.number("hidden_size", 512),
            hidden_width=options.number("intermediate_size", 2048),
            num_layers=options.number("num_hidden_layers", 12),
            num_heads=options.number("num_attention_heads", 8),
            max_tokens=options.number("max_position_embeddings", 77),
            activation=options.only("hidden_act", "quick_gelu", "gelu", default="quick_gelu"),
            epsilon=options.number("layer_norm_eps", 1e-5),
            eos_id=options.number("eos_token_id", 49407),
            projection_width=options.number("projection_dim", 512),
        )
        options.only("model_type", "clip_text_model", default="clip_text_model")
        options.only("attention_dropout", 0.0, default=0.0)
        # transformers 4 wrote dropout too and never read it.
        options.only("dropout", 0.0, default=0.0)
        options.ignore(*TEXT_BOOKKEEPING)
        options.finish()
        return config


TEXT_BOOKKEEPING = (
    "architectures", "bos_token_id", "pad_token_id", "dtype", "torch_dtype", "initializer_factor", "initializer_range",
    "transformers_version",
)  # fmt: skip

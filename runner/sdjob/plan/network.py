"""Which layers a model of Stable Diffusion has, told from its configuration: their parameters, and the work of a forward pass.

Sizes are of one picture. `flops` counts a multiplication and an addition as two, in convolutions, products of matrices and
attention; what passes over the memory once (norms, activations, sums) is not counted, as usual in the field.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from sdjob.core.errors import UsageError

Config = dict[str, Any]
Kind = Literal["conv", "linear", "attention", "norm", "embedding"]
VAE_BLOCK, UNET_PLAIN = "DownEncoderBlock2D", {"DownBlock2D", "UpBlock2D"}
UNET_CROSS = {"CrossAttnDownBlock2D", "CrossAttnUpBlock2D"}


@dataclass(frozen=True)
class Layer:
    name: str
    """As the weights are named, without `.weight`."""
    kind: Kind
    params: int
    flops: int
    inputs: int
    """Numbers that go in."""
    outputs: int
    """Numbers that come out."""
    into: int = 0
    """Numbers that go into one row of the product that it is; a convolution's kernel counts."""
    out: int = 0
    """And that come out of it."""
    channels: int = 0
    """Of what goes in."""


@dataclass(frozen=True)
class Grid:
    """A feature map's rows and columns."""

    height: int
    width: int

    @property
    def size(self) -> int:
        return self.height * self.width

    @property
    def halved(self) -> "Grid":
        """By a convolution of stride 2 that pads: odd numbers are rounded up."""
        return Grid((self.height + 1) // 2, (self.width + 1) // 2)


def conv(name: str, *, into: int, out: int, grid: Grid, kernel: int = 3, reads: Grid | None = None) -> Layer:
    """`grid` is what comes out; `reads` what goes in, where that is another."""
    weights = into * out * kernel**2
    sizes = {"inputs": into * (reads or grid).size, "outputs": out * grid.size}
    return Layer(name, "conv", weights + out, 2 * weights * grid.size, **sizes, into=into * kernel**2, out=out, channels=into)


def linear(name: str, *, into: int, out: int, rows: int, bias: bool = True) -> Layer:
    return Layer(name, "linear", into * out + bias * out, 2 * into * out * rows, into * rows, out * rows, into, out, into)


def attention(name: str, *, width: int, queries: int, keys: int) -> Layer:
    """Scores, and the sum that they weigh: a product each, of all heads together."""
    flops, inputs = 2 * 2 * queries * keys * width, (queries + 2 * keys) * width
    return Layer(name, "attention", 0, flops, inputs, queries * width, channels=width)


def norm(name: str, *, width: int, rows: int) -> Layer:
    return Layer(name, "norm", 2 * width, 0, width * rows, width * rows, channels=width)


# ---- the UNet --------------------------------------------------------------------------------------------------------------


def unet(config: Config, *, latents: Grid, text_tokens: int = 77) -> Iterator[Layer]:
    """diffusers' UNet2DConditionModel: https://huggingface.co/docs/diffusers/api/models/unet2d-cond

    Raises UsageError for blocks that Stable Diffusion does not have.
    """
    return UNet(config, text_tokens).layers(latents)


@dataclass(frozen=True)
class UNet:
    config: Config
    text_tokens: int

    @property
    def widths(self) -> list[int]:
        return list(self.config["block_out_channels"])

    @property
    def time_width(self) -> int:
        return 4 * self.widths[0]

    def layers(self, latents: Grid) -> Iterator[Layer]:
        first, grids = self.widths[0], [latents]
        while len(grids) < len(self.widths):
            grids.append(grids[-1].halved)
        yield from self.embeddings()
        yield conv("conv_in", into=self.config["in_channels"], out=first, grid=latents)
        skips = [first]
        yield from self.down(grids, skips)
        yield from self.middle(grids[-1])
        yield from self.up(grids, skips)
        yield norm("conv_norm_out", width=first, rows=latents.size)
        yield conv("conv_out", into=first, out=self.config["out_channels"], grid=latents)

    def embeddings(self) -> Iterator[Layer]:
        """Of the timestep, and in SDXL of the pooled text and the picture's size and crop."""
        yield linear("time_embedding.linear_1", into=self.widths[0], out=self.time_width, rows=1)
        yield linear("time_embedding.linear_2", into=self.time_width, out=self.time_width, rows=1)
        if self.config.get("addition_embed_type") == "text_time":
            into = self.config["projection_class_embeddings_input_dim"]
            yield linear("add_embedding.linear_1", into=into, out=self.time_width, rows=1)
            yield linear("add_embedding.linear_2", into=self.time_width, out=self.time_width, rows=1)

    def down(self, grids: Sequence[Grid], skips: list[int]) -> Iterator[Layer]:
        """Notes in `skips` the width of each feature map that the way up takes in again."""
        for number, (kind, width) in enumerate(zip(self.config["down_block_types"], self.widths, strict=True)):
            name, grid = f"down_blocks.{number}", grids[number]
            for layer in range(self.config["layers_per_block"]):
                yield from self.resnet(f"{name}.resnets.{layer}", into=skips[-1], out=width, grid=grid)
                if self.has_attention(kind):
                    yield from self.transformer(f"{name}.attentions.{layer}", width, grid, depth=self.depths[number])
                skips.append(width)
            if number < len(self.widths) - 1:
                yield conv(f"{name}.downsamplers.0.conv", into=width, out=width, grid=grids[number + 1], reads=grid)
                skips.append(width)

    def middle(self, grid: Grid) -> Iterator[Layer]:
        width = self.widths[-1]
        yield from self.resnet("mid_block.resnets.0", into=width, out=width, grid=grid)
        yield from self.transformer("mid_block.attentions.0", width, grid, depth=self.depths[-1])
        yield from self.resnet("mid_block.resnets.1", into=width, out=width, grid=grid)

    def up(self, grids: Sequence[Grid], skips: list[int]) -> Iterator[Layer]:
        before, last = self.widths[-1], len(self.widths) - 1
        for number, kind in enumerate(self.config["up_block_types"]):
            name, width, grid = f"up_blocks.{number}", self.widths[last - number], grids[last - number]
            for layer in range(self.config["layers_per_block"] + 1):
                yield from self.resnet(f"{name}.resnets.{layer}", into=before + skips.pop(), out=width, grid=grid)
                before = width
                if self.has_attention(kind):
                    yield from self.transformer(f"{name}.attentions.{layer}", width, grid, depth=self.depths[last - number])
            if number < last:
                yield conv(f"{name}.upsamplers.0.conv", into=width, out=width, grid=grids[last - number - 1])

    @property
    def depths(self) -> list[int]:
        """Transformer blocks at each level, the finest first."""
        found = self.config.get("transformer_layers_per_block", 1)
        return list(cast("list[int]", found)) if isinstance(found, list) else [found] * len(self.widths)

    def has_attention(self, kind: str) -> bool:
        if kind not in UNET_PLAIN | UNET_CROSS:
            raise UsageError(f"the UNet has a {kind}, which no Stable Diffusion has", where="unet/config.json")
        return kind in UNET_CROSS

    def resnet(self, name: str, *, into: int, out: int, grid: Grid) -> Iterator[Layer]:
        return resnet(name, into=into, out=out, grid=grid, time_width=self.time_width)

    def transformer(self, name: str, width: int, grid: Grid, *, depth: int) -> Iterator[Layer]:
        yield norm(f"{name}.norm", width=width, rows=grid.size)
        yield self.projection(f"{name}.proj_in", width, grid)
        for number in range(depth):
            yield from self.transformer_block(f"{name}.transformer_blocks.{number}", width, grid.size)
        yield self.projection(f"{name}.proj_out", width, grid)

    def projection(self, name: str, width: int, grid: Grid) -> Layer:
        if self.config.get("use_linear_projection"):
            return linear(name, into=width, out=width, rows=grid.size)
        return conv(name, into=width, out=width, grid=grid, kernel=1)

    def transformer_block(self, name: str, width: int, rows: int) -> Iterator[Layer]:
        yield norm(f"{name}.norm1", width=width, rows=rows)
        yield from attended(f"{name}.attn1", width, rows, memory=width, keys=rows)
        yield norm(f"{name}.norm2", width=width, rows=rows)
        yield from attended(f"{name}.attn2", width, rows, memory=self.config["cross_attention_dim"], keys=self.text_tokens)
        yield norm(f"{name}.norm3", width=width, rows=rows)
        yield linear(f"{name}.ff.net.0.proj", into=width, out=8 * width, rows=rows)  # twice 4: one half gates the other
        yield linear(f"{name}.ff.net.2", into=4 * width, out=width, rows=rows)


def attended(name: str, width: int, rows: int, *, memory: int, keys: int) -> Iterator[Layer]:
    yield linear(f"{name}.to_q", into=width, out=width, rows=rows, bias=False)
    yield linear(f"{name}.to_k", into=memory, out=width, rows=keys, bias=False)
    yield linear(f"{name}.to_v", into=memory, out=width, rows=keys, bias=False)
    yield attention(name, width=width, queries=rows, keys=keys)
    yield linear(f"{name}.to_out.0", into=width, out=width, rows=rows)


def resnet(name: str, *, into: int, out: int, grid: Grid, time_width: int | None) -> Iterator[Layer]:
    yield norm(f"{name}.norm1", width=into, rows=grid.size)
    yield conv(f"{name}.conv1", into=into, out=out, grid=grid)
    if time_width is not None:
        yield linear(f"{name}.time_emb_proj", into=time_width, out=out, rows=1)
    yield norm(f"{name}.norm2", width=out, rows=grid.size)
    yield conv(f"{name}.conv2", into=out, out=out, grid=grid)
    if into != out:
        yield conv(f"{name}.conv_shortcut", into=into, out=out, grid=grid, kernel=1)


# ---- the frozen encoders ---------------------------------------------------------------------------------------------------


def vae_encoder(config: Config, *, picture: Grid) -> Iterator[Layer]:
    """The half of diffusers' AutoencoderKL that training needs."""
    widths = list(config["block_out_channels"])
    before, grid, moments = widths[0], picture, 2 * config["latent_channels"]
    yield conv("encoder.conv_in", into=config["in_channels"], out=before, grid=grid)
    for number, width in enumerate(widths):
        if config["down_block_types"][number] != VAE_BLOCK:
            raise UsageError(f"the VAE has a {config['down_block_types'][number]}", where="vae/config.json")
        name = f"encoder.down_blocks.{number}"
        for layer in range(config["layers_per_block"]):
            yield from resnet(f"{name}.resnets.{layer}", into=before, out=width, grid=grid, time_width=None)
            before = width
        if number < len(widths) - 1:
            yield conv(f"{name}.downsamplers.0.conv", into=width, out=width, grid=grid.halved, reads=grid)
            grid = grid.halved
    yield from vae_middle(before, grid)
    yield norm("encoder.conv_norm_out", width=before, rows=grid.size)
    yield conv("encoder.conv_out", into=before, out=moments, grid=grid)
    if config.get("use_quant_conv", True):
        yield conv("quant_conv", into=moments, out=moments, grid=grid, kernel=1)


def vae_decoder(config: Config) -> Iterator[Layer]:
    """The other half, which lies on the device for the pictures of a validation: its parameters, of a map of one latent."""
    widths, grid = list(reversed(config["block_out_channels"])), Grid(1, 1)
    before, latents = widths[0], config["latent_channels"]
    if config.get("use_post_quant_conv", True):
        yield conv("post_quant_conv", into=latents, out=latents, grid=grid, kernel=1)
    yield conv("decoder.conv_in", into=latents, out=before, grid=grid)
    yield from vae_middle(before, grid, name="decoder.mid_block")
    for number, width in enumerate(widths):
        name = f"decoder.up_blocks.{number}"
        for layer in range(config["layers_per_block"] + 1):
            yield from resnet(f"{name}.resnets.{layer}", into=before, out=width, grid=grid, time_width=None)
            before = width
        if number < len(widths) - 1:
            yield conv(f"{name}.upsamplers.0.conv", into=width, out=width, grid=grid)
    yield norm("decoder.conv_norm_out", width=before, rows=1)
    yield conv("decoder.conv_out", into=before, out=config["in_channels"], grid=grid)


def vae_middle(width: int, grid: Grid, *, name: str = "encoder.mid_block") -> Iterator[Layer]:
    rows = grid.size
    yield from resnet(f"{name}.resnets.0", into=width, out=width, grid=grid, time_width=None)
    yield norm(f"{name}.attentions.0.group_norm", width=width, rows=rows)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        yield linear(f"{name}.attentions.0.{part}", into=width, out=width, rows=rows)
    yield attention(f"{name}.attentions.0", width=width, queries=rows, keys=rows)
    yield from resnet(f"{name}.resnets.1", into=width, out=width, grid=grid, time_width=None)


def text_encoder(config: Config) -> Iterator[Layer]:
    """transformers' CLIPTextModel, with its projection where the configuration names that class."""
    width, inner, rows = config["hidden_size"], config["intermediate_size"], config["max_position_embeddings"]
    yield Layer("embeddings.token_embedding", "embedding", config["vocab_size"] * width, 0, rows, rows * width)
    yield Layer("embeddings.position_embedding", "embedding", rows * width, 0, rows, rows * width)
    for number in range(config["num_hidden_layers"]):
        name = f"encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield linear(f"{name}.self_attn.{part}", into=width, out=width, rows=rows)
        yield attention(f"{name}.self_attn", width=width, queries=rows, keys=rows)
        yield linear(f"{name}.mlp.fc1", into=width, out=inner, rows=rows)
        yield linear(f"{name}.mlp.fc2", into=inner, out=width, rows=rows)
        for part in ("layer_norm1", "layer_norm2"):
            yield norm(f"{name}.{part}", width=width, rows=rows)
    yield norm("final_layer_norm", width=width, rows=rows)
    if "CLIPTextModelWithProjection" in config.get("architectures", ()):
        yield linear("text_projection", into=width, out=config["projection_dim"], rows=1, bias=False)

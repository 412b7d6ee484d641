"""The flax UNet against diffusers' own, in float32, on random small models of every family."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel as TorchUNet
from flax import nnx
from numpy.typing import NDArray

from fakes.flax_parity import assert_gradients_agree, channels_first, channels_last, distance, write_family
from fakes.tiny_sdxl import POOLED_WIDTH
from sdjob.train_flax.models import names
from sdjob.train_flax.models.attention import chunked_attention
from sdjob.train_flax.models.folder import read_unet
from sdjob.train_flax.models.layers import Compute
from sdjob.train_flax.models.unet import AddedConditions, UNet2DConditionModel

# Odd sizes come up to what their skips have; at 8 x 12 every level is half of the one above it.
SIZES = {"sd1": (9, 11), "sd2": (8, 12), "sdxl": (9, 11)}
# Neither gradient checkpointing nor attention in chunks may change anything: one family has both.
COMPUTES = {"sd1": Compute(), "sd2": Compute(remat=True, attention=partial(chunked_attention, block=16)), "sdxl": Compute()}
TEXT_WIDTHS = {"sd1": 32, "sd2": 32, "sdxl": 80}


@dataclass(frozen=True)
class Inputs:
    noisy_BCHW: torch.Tensor
    timesteps_B: torch.Tensor
    text_BTD: torch.Tensor
    target_BCHW: torch.Tensor
    pooled_BP: torch.Tensor | None
    time_ids_B6: torch.Tensor | None

    @property
    def for_torch(self) -> dict[str, Any]:
        added = None if self.pooled_BP is None else {"text_embeds": self.pooled_BP, "time_ids": self.time_ids_B6}
        return {"encoder_hidden_states": self.text_BTD, "added_cond_kwargs": added}

    @property
    def for_flax(self) -> tuple[Any, ...]:
        added = None if self.pooled_BP is None else AddedConditions(self.pooled_BP.numpy(), self.time_ids_B6.numpy())
        return channels_last(self.noisy_BCHW), self.timesteps_B.numpy(), self.text_BTD.numpy(), added


def make_inputs(family: str) -> Inputs:
    generator = torch.Generator().manual_seed(3)
    random = partial(torch.randn, generator=generator)
    ids = torch.tensor([[1024.0, 768, 0, 16, 1024, 1024], [640, 480, 8, 0, 512, 768]])
    xl = family == "sdxl"
    return Inputs(
        random(2, 4, *SIZES[family]), torch.tensor([3, 987]), random(2, 13, TEXT_WIDTHS[family]), random(2, 4, *SIZES[family]),
        pooled_BP=random(2, POOLED_WIDTH) if xl else None, time_ids_B6=ids if xl else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    prediction_BCHW: NDArray[np.float32]
    gradients: dict[str, NDArray[Any]]
    """Of the mean squared error, under torch's names and in its layouts."""


def flax_outcome(unet: UNet2DConditionModel, inputs: Inputs) -> Outcome:
    graph, params = nnx.split(unet)

    def loss(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        predicted = nnx.merge(graph, params)(*inputs.for_flax)
        return jnp.square(predicted - channels_last(inputs.target_BCHW)).mean(), predicted

    gradients, predicted = jax.jit(jax.grad(loss, has_aux=True))(params)
    named = {names.torch_name(path): names.to_torch(path, np.asarray(v.get_value())) for path, v in nnx.to_flat_state(gradients)}
    return Outcome(channels_first(predicted), named)


@dataclass(frozen=True)
class Pair:
    inputs: Inputs
    torch_prediction_BCHW: torch.Tensor
    torch_gradients: dict[str, torch.Tensor]
    ours: Outcome


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def pair(request, tmp_path_factory) -> Iterator[Pair]:
    """One family's UNet of both backends, run once."""
    folder = write_family(tmp_path_factory.mktemp("models"), request.param) / "unet"
    inputs, theirs = make_inputs(request.param), TorchUNet.from_pretrained(folder)
    predicted = theirs(inputs.noisy_BCHW, inputs.timesteps_B, **inputs.for_torch).sample
    torch.nn.functional.mse_loss(predicted, inputs.target_BCHW).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    ours = flax_outcome(read_unet(folder, compute=COMPUTES[request.param]), inputs)
    return Pair(inputs, predicted.detach(), gradients, ours)


def test_prediction(pair):
    assert distance(pair.ours.prediction_BCHW, pair.torch_prediction_BCHW) <= 1e-4


def test_gradients_of_every_parameter(pair):
    assert_gradients_agree(pair.ours.gradients, pair.torch_gradients)


@pytest.fixture(scope="module")
def sd1(tmp_path_factory) -> Any:
    return write_family(tmp_path_factory.mktemp("models"), "sd1") / "unet"


@pytest.mark.parametrize(("remat", "blocks"), [(False, 0), (True, 12)])
def test_checkpointing_is_by_resnet_and_transformer_block(sd1, remat, blocks):
    graph, params = nnx.split(read_unet(sd1, compute=Compute(remat=remat)))
    inputs = make_inputs("sd1").for_flax
    program = jax.make_jaxpr(lambda params: nnx.merge(graph, params)(*inputs))(params)
    # 1 resnet with attention and 1 without going down, 2 in the middle with attention between, 2 and 2 with going up:
    # 8 resnets and 4 transformer blocks.
    assert [e.primitive.name for e in program.eqns].count("remat2") == blocks


def test_bf16_is_as_close_as_torchs(sd1):
    inputs, theirs = make_inputs("sd1"), TorchUNet.from_pretrained(sd1)
    unet = read_unet(sd1, compute=Compute(dtype=jnp.bfloat16))
    assert {v.get_value().dtype for _, v in nnx.to_flat_state(nnx.state(unet))} == {jnp.dtype(jnp.float32)}
    graph, params = nnx.split(unet)
    predicted = jax.jit(lambda params: nnx.merge(graph, params)(*inputs.for_flax))(params)
    assert predicted.dtype == jnp.bfloat16
    with torch.no_grad():
        exact = theirs(inputs.noisy_BCHW, inputs.timesteps_B, **inputs.for_torch).sample
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = theirs(inputs.noisy_BCHW, inputs.timesteps_B, **inputs.for_torch).sample
    off = np.linalg.norm(channels_first(predicted) - exact.numpy())
    assert 0 < off <= 1.5 * torch.linalg.norm(rounded.float() - exact)


def test_added_conditions_are_sdxls_alone(sd1):
    unet, inputs = read_unet(sd1), make_inputs("sdxl")
    with pytest.raises(ValueError, match="SDXL needs its added conditions"):
        unet.embed_time(jnp.array([1, 2]), inputs.for_flax[3])

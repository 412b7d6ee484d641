"""The flax VAE against diffusers' own, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as TorchVae
from flax import nnx

from fakes.flax_parity import channels_first, channels_last, distance, write_family
from sdjob.train_flax.models.folder import read_vae
from sdjob.train_flax.models.layers import Compute


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_family(tmp_path_factory.mktemp("models"), "sd1") / "vae"


@pytest.fixture(scope="module")
def pixels_BCHW():
    """Neither square nor a multiple of 8: the last columns fall off on the way down, as in torch."""
    return torch.rand(2, 3, 44, 60, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.fixture(scope="module")
def posterior(folder, pixels_BCHW):
    graph, params = nnx.split(read_vae(folder))
    return jax.jit(lambda params, pixels: nnx.merge(graph, params).encode(pixels))(params, channels_last(pixels_BCHW))


@torch.no_grad()
def test_encode(folder, pixels_BCHW, posterior):
    theirs = TorchVae.from_pretrained(folder).encode(pixels_BCHW).latent_dist
    assert distance(channels_first(posterior.mean_BHWC), theirs.mean) <= 1e-4
    assert distance(channels_first(posterior.log_variance_BHWC), theirs.logvar) <= 1e-4
    draw = torch.randn(theirs.mean.shape, generator=torch.Generator().manual_seed(6))
    drawn = posterior.drawn(channels_last(draw))
    assert distance(channels_first(drawn), theirs.mean + theirs.std * draw) <= 1e-4


@torch.no_grad()
def test_log_variance_is_clamped_as_in_torch(folder):
    theirs, ours = TorchVae.from_pretrained(folder), read_vae(folder)
    bias = torch.tensor([0.0] * 4 + [-100.0, 100.0, -29.0, 19.0])
    theirs.quant_conv.bias.copy_(bias)
    ours.quant_conv.bias[...] = jnp.asarray(bias.numpy())
    moments = torch.randn(1, 8, 3, 3, generator=torch.Generator().manual_seed(7))
    expected = TorchVae.encode(_WithMoments(theirs, moments), torch.zeros(1, 3, 24, 24)).latent_dist.logvar
    ours.encoder = lambda pixels: channels_last(moments)
    assert distance(channels_first(ours.encode(None).log_variance_BHWC), expected) <= 1e-4
    assert (expected.min(), expected.max()) == (-30, 20)


class _WithMoments:
    """diffusers' encode of an encoder that gives these moments."""

    def __init__(self, vae, moments):
        self._vae, self._moments = vae, moments
        self.use_slicing = self.use_tiling = False

    def _encode(self, pixels):
        return self._vae.quant_conv(self._moments)


@torch.no_grad()
def test_decode(folder):
    latents = torch.randn(2, 4, 5, 7, generator=torch.Generator().manual_seed(8))
    theirs = TorchVae.from_pretrained(folder).decode(latents).sample
    graph, params = nnx.split(read_vae(folder, compute=Compute(remat=True)))
    ours = jax.jit(lambda params, latents: nnx.merge(graph, params).decode(latents))(params, channels_last(latents))
    assert distance(channels_first(ours), theirs) <= 1e-4


def test_bf16_runs(folder, pixels_BCHW, posterior):
    graph, params = nnx.split(read_vae(folder, compute=Compute(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)))
    rounded = jax.jit(lambda params, pixels: nnx.merge(graph, params).encode(pixels))(params, channels_last(pixels_BCHW))
    assert rounded.mean_BHWC.dtype == jnp.float32
    off = np.abs(rounded.mean_BHWC - posterior.mean_BHWC).max()
    assert 0 < off <= 0.1 * np.abs(posterior.mean_BHWC).max()

"""The TPU's attention kernel is attention; run here without a TPU, in blocks of 128."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from fakes import flax_parity  # noqa: F401 - binds jax to the CPU
from sdjob.train_flax.models import splash
from sdjob.train_flax.models.attention import attend, whole_attention
from sdjob.train_flax.models.splash import SplashAttention, attention_of, block_of, splash_attention


def make_inputs(*, queries, keys, features, rows=2, dtype=jnp.float32):
    random = np.random.default_rng(0)
    shapes = [(rows, length, 2, features) for length in (queries, keys, keys)]
    return [jnp.asarray(2 * random.standard_normal(shape), dtype) for shape in shapes]


def one_device():
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))


@pytest.mark.parametrize(("queries", "keys", "features"), [(256, 384, 40), (256, 256, 80)])
def test_forward_and_gradients(queries, keys, features, monkeypatch):
    monkeypatch.setattr(splash, "LARGEST_BLOCK", 128)
    inputs = make_inputs(queries=queries, keys=keys, features=features)
    weights = jnp.asarray(np.random.default_rng(1).standard_normal(inputs[0].shape), jnp.float32)

    def both(function):
        return jax.value_and_grad(lambda inputs: (function(*inputs) * weights).sum())(inputs)

    ours, our_gradients = both(lambda *inputs: splash_attention(*inputs, interpret=True))
    theirs, their_gradients = both(whole_attention)
    assert abs(ours - theirs) <= 1e-5 * abs(theirs)
    for our, their in zip(our_gradients, their_gradients, strict=True):
        assert jnp.linalg.norm(our - their) <= 1e-5 * jnp.linalg.norm(their)


def test_on_a_mesh_in_bf16(monkeypatch):
    monkeypatch.setattr(splash, "LARGEST_BLOCK", 128)
    monkeypatch.setattr(splash, "FEWEST_TOKENS", 256)
    inputs = make_inputs(queries=256, keys=256, features=40, dtype=jnp.bfloat16)
    attended = jax.jit(SplashAttention(one_device(), interpret=True))(*inputs)
    exact = whole_attention(*(values.astype(jnp.float32) for values in inputs))
    assert attended.dtype == jnp.bfloat16
    # bf16 has 8 bits: queries, weights and the result are rounded to them.
    assert jnp.linalg.norm(attended.astype(jnp.float32) - exact) <= 3 * 2**-8 * jnp.linalg.norm(exact)


@pytest.mark.parametrize(
    ("dtype", "queries", "keys"), [(jnp.float32, 1024, 1024), (jnp.bfloat16, 1024, 77), (jnp.bfloat16, 1032, 1032)]
)
def test_what_the_kernel_does_not_do_is_left_to_the_compiler(dtype, queries, keys):
    inputs = make_inputs(queries=queries, keys=keys, features=8, dtype=dtype)
    program = jax.make_jaxpr(SplashAttention(one_device(), interpret=True))(*inputs)
    assert "pallas_call" not in str(program)
    assert str(program) == str(jax.make_jaxpr(attend)(*inputs))


def test_rows_that_do_not_divide_are_computed_everywhere():
    """Of a mesh that is looked at only: two devices, and three rows of a validation picture."""
    mesh = jax.sharding.AbstractMesh((1, 2), ("data", "fsdp"))
    for rows, local in ((3, 3), (4, 2)):
        inputs = make_inputs(queries=1024, keys=1024, features=8, rows=rows, dtype=jnp.bfloat16)
        program = jax.make_jaxpr(SplashAttention(mesh, interpret=True))(*inputs)
        inner = next(equation for equation in program.eqns if equation.primitive.name == "shard_map").params["jaxpr"]
        assert {given.aval.shape[0] for given in inner.invars if given.aval.ndim == 4} == {local}


def test_a_cpu_has_no_kernel():
    assert attention_of(one_device()) is attend


@pytest.mark.parametrize(("length", "block"), [(1024, 1024), (4096, 1024), (4608, 768), (1152, 384), (128, 128), (2560, 640)])
def test_blocks_divide_the_length(length, block):
    assert block_of(length) == block

"""Attention in chunks is attention, and never holds all scores."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fakes import flax_parity  # noqa: F401 - binds jax to the CPU
from sdjob.train_flax.models import attention
from sdjob.train_flax.models.attention import attend, chunked_attention, whole_attention


def make_inputs(*, queries, keys, dtype=jnp.float32):
    random = np.random.default_rng(0)
    shapes = [(2, queries, 3, 4), (2, keys, 3, 4), (2, keys, 3, 4)]
    # Scores far from zero and of growing size: the running maximum must be corrected from block to block.
    return [jnp.asarray(random.standard_normal(shape) * np.linspace(1, 6, shape[1])[:, None, None], dtype) for shape in shapes]


def forward_and_gradients(function, inputs):
    weights = jnp.arange(np.prod(inputs[0].shape), dtype=jnp.float32).reshape(inputs[0].shape) / 100

    def weighed(inputs):
        attended = function(*inputs)
        return (attended * weights).sum(), attended

    gradients, attended = jax.jit(jax.grad(weighed, has_aux=True))(inputs)
    return [attended, *gradients]


@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (21, 13)])
def test_chunked_is_whole(queries, keys):
    inputs = make_inputs(queries=queries, keys=keys)
    chunked = forward_and_gradients(partial(chunked_attention, block=8), inputs)
    for ours, theirs in zip(chunked, forward_and_gradients(whole_attention, inputs), strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


def test_bf16_stays_bf16():
    inputs = make_inputs(queries=16, keys=16, dtype=jnp.bfloat16)
    chunked, whole = jax.jit(partial(chunked_attention, block=8))(*inputs), whole_attention(*inputs)
    assert chunked.dtype == jnp.bfloat16
    assert np.linalg.norm((chunked - whole).astype(jnp.float32)) <= 0.01 * np.linalg.norm(whole.astype(jnp.float32))


def largest_array(function, inputs):
    """Elements of the largest array anywhere in the program of forward and backward."""
    largest = 0
    programs = [jax.make_jaxpr(jax.grad(lambda inputs: function(*inputs).sum()))(inputs).jaxpr]
    while programs:
        program = programs.pop()
        for equation in program.eqns:
            largest = max([largest, *(variable.aval.size for variable in equation.outvars)])
            programs += inner(equation)
    return largest


def inner(equation):
    """The programs that an operation such as scan or checkpoint runs."""
    for value in equation.params.values():
        for part in value if isinstance(value, list | tuple) else [value]:
            if hasattr(part, "eqns"):
                yield part
            elif hasattr(part, "jaxpr"):
                yield part.jaxpr


def test_all_scores_are_never_there():
    inputs = make_inputs(queries=64, keys=64)
    scores = 2 * 3 * 64 * 64
    assert largest_array(whole_attention, inputs) >= scores
    assert largest_array(lambda *inputs: chunked_attention(*inputs, block=8), inputs) < scores / 8


def test_long_sequences_are_chunked(monkeypatch):
    taken = []
    monkeypatch.setattr(attention, "whole_attention", lambda *inputs: taken.append("whole"))
    monkeypatch.setattr(attention, "chunked_attention", lambda *inputs: taken.append("chunked"))
    for queries, keys in [(1024, 1024), (4096, 77), (4096, 4096), (9216, 9216)]:
        attend(jnp.zeros((1, queries, 1, 1)), jnp.zeros((1, keys, 1, 1)), jnp.zeros((1, keys, 1, 1)))
    assert taken == ["whole", "whole", "chunked", "chunked"]

"""The shapes that are compiled ahead are those that a trainer has; the work in them is counted as it runs."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AbstractMesh, PartitionSpec

from fakes import flax_parity  # noqa: F401 - binds jax to the CPU
from fakes.flax_runs import make_flax_batch, make_flax_trainer
from fakes.tiny_models import write_tiny_model
from fakes.torch_runs import make_task
from sdjob.core.errors import UsageError
from sdjob.train_flax.mesh import Layout
from sdjob.train_flax.models.splash import splash_attention
from sdjob.train_flax.shapes import flops_of, step_shapes
from sdjob.train_flax.step import advance


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sd1"
    write_tiny_model(folder, family="sd1")
    return folder


def described(tree):
    """(shape, type, place) of every array by its path."""
    return {
        jax.tree_util.keystr(path): (array.shape, array.dtype, array.sharding)
        for path, array in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize(("method", "precision"), [("lora", "fp32"), ("full", "bf16")])
def test_a_trainers_own_arguments(model, method, precision):
    train = {"precision": precision, "device_batch": 2, "global_batch": 6, "ema": {"decay": 0.99}, "cache": "never"}
    task = make_task(model, method=method, train=train)
    shapes = step_shapes(task, layout=Layout.of_all_devices())
    runner = make_flax_trainer(task).runner
    assert shapes.plan == runner.plan
    assert described(shapes.state) == described(runner.state)
    assert described(shapes.frozen) == described(runner.frozen)
    batch = make_flax_batch(task, step=0, micros=[range(2), range(2, 4), range(4, 6)])
    assert described(shapes.batch) == described(runner.put(batch))


def test_no_weights_are_needed(model, tmp_path):
    for config in model.rglob("*.json"):
        copy = tmp_path / config.relative_to(model)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(config.read_bytes())
    with_weights, without = (step_shapes(make_task(folder), layout=Layout.of_all_devices()) for folder in (model, tmp_path))
    assert described((without.state, without.frozen, without.batch)) == described(
        (with_weights.state, with_weights.frozen, with_weights.batch)
    )


def test_a_batch_that_the_devices_do_not_divide(model):
    task = make_task(model, train={"device_batch": 2, "global_batch": 3})
    with pytest.raises(UsageError, match="3 is no multiple of 1 devices x device_batch 2"):
        step_shapes(task, layout=Layout.of_all_devices())


@pytest.mark.parametrize(("global_batch", "loops"), [(2, 0), (4, 1)])
def test_one_micro_step_is_no_loop(model, global_batch, loops):
    """In a loop XLA's convolutions for CPUs are many times slower."""
    task = make_task(model, train={"device_batch": 2, "global_batch": global_batch})
    shapes = step_shapes(task, layout=Layout.of_all_devices())
    program = advance.trace(shapes.state, shapes.frozen, shapes.batch, shapes.knobs, plan=shapes.plan).jaxpr
    assert [equation.primitive.name for equation in program.eqns].count("scan") == loops


def counted(function, *shapes):
    return flops_of(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).jaxpr)


def compilers(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arrays).compile().cost_analysis()["flops"]


def test_a_product():
    assert counted(lambda a, b: a @ b, (3, 5), (5, 7)) == 2 * 3 * 5 * 7


def test_a_loop_counts_as_often_as_it_runs():
    def looped(a, b):
        return lax.scan(lambda carry, _: (jax.checkpoint(jnp.matmul)(carry, b), None), a, None, length=6)[0]

    assert counted(looped, (3, 5), (5, 5)) == 6 * 2 * 3 * 5 * 5


def test_what_each_device_does_counts_for_all():
    mesh, rows = AbstractMesh((4,), ("rows",)), PartitionSpec("rows")
    spread = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)
    assert counted(spread, (8, 5), (5, 7)) == 2 * 8 * 5 * 7


def test_a_kernel_counts_at_each_of_its_steps():
    def attended(queries, keys):
        return splash_attention(queries, keys, keys, interpret=True).sum()

    shapes = (2, 256, 3, 16), (2, 2048, 3, 16)
    product = 2 * 2 * 256 * 2048 * 3 * 16
    assert counted(attended, *shapes) == 2 * product
    # Forward; then the scores anew, and a gradient each of the scores, the values, the queries and the keys.
    assert counted(jax.grad(attended, argnums=(0, 1)), *shapes) == pytest.approx((2 + 5) * product, rel=1e-3)


def convolved(images, kernel, *, stride):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (stride, stride), "VALID", dimension_numbers=numbers)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_gradients_cost_what_the_compiler_says(stride):
    def loss(images, kernel):
        return convolved(images, kernel, stride=stride).sum()

    shapes = (2, 33, 33, 8), (3, 3, 8, 16)
    forward = counted(loss, *shapes)
    assert forward == pytest.approx(compilers(loss, *shapes), rel=0.05)
    # Forward, and a gradient each; the padding around the gradients' convolutions is counted as work.
    assert counted(jax.grad(loss, argnums=(0, 1)), *shapes) == pytest.approx(3 * forward, rel=0.1)

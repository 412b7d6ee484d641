"""A job's step as shapes alone, laid out over devices that need not exist: enough to compile it, and no weights are made.

Axes: M micro-steps, B pictures of one, H x W positions, C channels, E text encoders, T tokens.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from sdjob.core.errors import UsageError
from sdjob.spec.task import TrainTask
from sdjob.train_flax.encoded import without_those_that_ran_before
from sdjob.train_flax.mesh import Layout
from sdjob.train_flax.setup import Program, build_models, build_program
from sdjob.train_flax.state import TrainState, shardings_of, started
from sdjob.train_flax.step import Knobs, Models, Plan, StepBatch, advance


@dataclass(frozen=True)
class StepShapes:
    """The arguments of `step.advance`: each array's shape, type and place."""

    state: TrainState
    frozen: Any
    batch: StepBatch
    knobs: Knobs
    plan: Plan

    def lowered(self) -> jax.stages.Lowered:
        return advance.lower(self.state, self.frozen, self.batch, self.knobs, plan=self.plan)

    def products_flops(self) -> float:
        """Of all devices together, in products and convolutions."""
        return flops_of(advance.trace(self.state, self.frozen, self.batch, self.knobs, plan=self.plan).jaxpr.jaxpr)


def step_shapes(task: TrainTask, *, layout: Layout) -> StepShapes:
    models = build_models(task, layout=layout, shapes_alone=True)
    batch = batch_shapes(task, models=models, layout=layout)
    models, batch = without_those_that_ran_before(models, batch, job=task.job)
    return shapes_of(build_program(task, models=models, layout=layout), batch=batch, layout=layout)


def shapes_of(program: Program, *, batch: StepBatch, layout: Layout) -> StepShapes:
    optimizer = program.plan.optimizer
    start = partial(started, ema=program.ema, optimizer=optimizer, paths=dict(program.plan.paths))
    parameters = {name: jax.ShapeDtypeStruct(array.shape, jnp.float32) for name, array in program.parameters.items()}
    made = jax.eval_shape(start, parameters)
    where = shardings_of(made, layout=layout)
    state: TrainState = jax.tree.map(lambda array, placed: shape_of(array, placed=placed), made, where)
    frozen = jax.tree.map(lambda array: shape_of(array, placed=layout.whole), program.frozen)
    number = jax.ShapeDtypeStruct((), jnp.float32, sharding=layout.whole)
    seeds_M = jax.ShapeDtypeStruct(batch.timesteps_MB.shape[:1], jnp.uint32, sharding=layout.whole)
    own = dict.fromkeys(optimizer.numbers(1), number)
    knobs = Knobs(learning_rate=number, optimizer=own, ema_share=number, dropout_seeds_M=seeds_M)
    return StepShapes(state, frozen, batch, knobs, program.plan)


def shape_of(array: Any, *, placed: NamedSharding, dtype: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, dtype or array.dtype, sharding=placed)


def batch_shapes(task: TrainTask, *, models: Models, layout: Layout) -> StepBatch:
    """Of all processes together."""
    train, resolution = task.job.train, task.job.data.resolution
    rows = train.device_batch * layout.mesh.size
    num_micro, odd = divmod(train.global_batch, rows)
    if odd or not num_micro:
        raise UsageError(
            f"{train.global_batch} is no multiple of {layout.mesh.size} devices x device_batch {train.device_batch}.",
            where="train.global_batch",
        )
    channels, *size = models.latents.shape(width=resolution.width, height=resolution.height)

    beside = 1 if task.job.data.prior is None else 2

    def shaped(*axes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((num_micro, beside * rows, *axes), dtype, sharding=layout.rows)

    latents, scalars = shaped(*size, channels), shaped()
    return StepBatch(
        pictures={"pixels_MBHWC": shaped(resolution.height, resolution.width, 3)},
        captions={
            "ids_MBET": shaped(len(models.text.parts), models.text.max_tokens, dtype=jnp.int32),
            "told_MB": scalars,
        },
        time_ids_MB6=shaped(6),
        timesteps_MB=shaped(dtype=jnp.int32),
        signal_MB=scalars,
        sigma_MB=scalars,
        loss_weight_MB=scalars,
        noise_MBHWC=latents,
        input_noise_MBHWC=latents,
        posterior_MBHWC=latents,
    )


# ---- work ------------------------------------------------------------------------------------------------------------------


def flops_of(jaxpr: Any) -> float:
    """Of the products and convolutions in a traced program, a multiplication and an addition being two.

    XLA's own count has the body of a loop once, however often it runs, and nothing of a kernel.
    """
    return sum(_flops_of_equation(equation) for equation in jaxpr.eqns)


def _flops_of_equation(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * inner * equation.outvars[0].aval.size
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        num_outputs = kernel.shape[parameters["dimension_numbers"].rhs_spec[0]]
        # In the backward pass the picture may be dilated: the zeros between its positions are no work.
        taps = kernel.size / num_outputs / math.prod(parameters["lhs_dilation"])
        return 2.0 * taps * equation.outvars[0].aval.size
    if name == "cond":
        return max(flops_of(branch.jaxpr) for branch in parameters["branches"])
    return _times(name, parameters) * sum(map(flops_of, _inner_jaxprs(parameters)))


def _times(name: str, parameters: dict[str, Any]) -> int:
    """How often what is inside runs, on all devices together."""
    if name == "scan":
        return parameters["length"]
    if name == "pallas_call":
        return math.prod(parameters["grid_mapping"].grid)
    return parameters["mesh"].size if name == "shard_map" else 1


def _inner_jaxprs(parameters: dict[str, Any]) -> Iterator[Any]:
    for value in parameters.values():
        inner = getattr(value, "jaxpr", value)  # a closed one holds its own
        if hasattr(inner, "eqns"):
            yield inner

"""Programs that are compiled before the loop begins: one for each size of pictures, so that no step waits for a compiler."""

from collections.abc import Iterable
from typing import Any

import jax

from sdjob.train_flax.step import StepBatch, StepRunner, advance, shapes_of


def compile_ahead(runner: StepRunner, batches: Iterable[tuple[int, StepBatch]]) -> None:
    """For every shape among `batches`, (step, batch) each, of which nothing but shapes and places is looked at."""
    for step, batch in batches:
        knobs = runner.knobs(0.0, step=step, num_micro=len(batch.timesteps_MB))
        arguments: Any = (runner.state, runner.frozen, runner.put(batch))
        shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding), arguments)
        runner.programs[shapes_of(batch)] = advance.lower(*shapes, knobs, plan=runner.plan).compile()

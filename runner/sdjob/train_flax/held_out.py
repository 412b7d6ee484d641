"""The loss on the held-out pictures: at the same noise each time, of the weights that would be published now."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdjob.data.prefetch import Prefetch, SampleBatches
from sdjob.encodings.held_out import held_out_of
from sdjob.encodings.reader import Encodings
from sdjob.spec.task import TrainTask
from sdjob.train_flax.batches import BatchMaker, rows_of_process
from sdjob.train_flax.conditioning import Tokenizers
from sdjob.train_flax.setup import FlaxTrainer
from sdjob.train_flax.state import Tensors
from sdjob.train_flax.step import Frozen, Plan, StepBatch, loss_of


def measure_of(task: TrainTask, *, trainer: FlaxTrainer, encodings: Encodings | None = None) -> Callable[[], float] | None:
    """What computes the loss, on all processes together; None where nothing is held out."""
    if task.job.data.held_out is None:
        return None
    rows_of_micro = task.job.train.device_batch * jax.local_device_count()
    global_batch = rows_of_micro * jax.process_count()
    held_out = held_out_of(task, global_batch=global_batch, latent_shape=trainer.latent_shape, encodings=encodings)
    rows = rows_of_process(
        jax.process_index(), num_processes=jax.process_count(), rows_of_micro=rows_of_micro, global_batch=global_batch
    )
    tokenizers, workers = Tokenizers.of(task.model), task.job.run.workers

    def measure() -> float:
        with closing(SampleBatches[Any](held_out.samples, global_batch=global_batch, members=rows, workers=workers)) as samples:
            maker = BatchMaker(samples, 1, tokenizers, held_out.draws)
            with Prefetch(maker, start=0, stop=held_out.num_batches, depth=2 if workers else 0) as batches:
                return held_out.mean(summed(batches, trainer=trainer))

    return measure


def summed(batches: Iterable[StepBatch], *, trainer: FlaxTrainer) -> float:
    """Over the batches the mean of each one's rows."""
    runner = trainer.runner
    weights = runner.state.parameters if runner.state.averages is None else runner.state.averages
    plan, total = replace(runner.plan, dropout=False), 0.0
    for batch in batches:
        total += float(np.asarray(error_of(weights, runner.frozen, runner.put(batch), plan=plan)))
        trainer.on_work()
    return total


@partial(jax.jit, static_argnames=("plan",))
def error_of(parameters: Tensors, frozen: Frozen, batch: StepBatch, *, plan: Plan) -> Any:
    """Of a batch of one micro-step."""
    only = jax.tree.map(lambda array: array[0], batch)
    weights = plan.layout.brought(parameters) if plan.layout else parameters  # averages may lie on the host
    return loss_of(weights, frozen, only, jnp.uint32(0), plan=plan)

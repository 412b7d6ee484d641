"""The loss on the held-out pictures: at the same noise each time, of the weights that would be published now."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sdjob.data.held_out import HeldOutSource, held_out_order
from sdjob.data.index import read_index
from sdjob.data.prefetch import Prefetch, SampleBatches
from sdjob.diffusion.held_out_draws import HeldOutDraws, HeldOutKey
from sdjob.encodings.reader import Encodings
from sdjob.encodings.samples import EncodedSource
from sdjob.spec.job import loss_timesteps
from sdjob.spec.task import TrainTask
from sdjob.train_flax.batches import BatchMaker, draw_plan, rows_of_process
from sdjob.train_flax.conditioning import Tokenizers
from sdjob.train_flax.setup import FlaxTrainer
from sdjob.train_flax.state import Tensors
from sdjob.train_flax.step import Frozen, Plan, StepBatch, loss_of


def measure_of(task: TrainTask, *, trainer: FlaxTrainer, encodings: Encodings | None = None) -> Callable[[], float] | None:
    """What computes the loss, on all processes together; None where nothing is held out."""
    data, train = task.job.data, task.job.train
    if data.held_out is None:
        return None
    num_levels, rows_of_micro = loss_timesteps(task.job), train.device_batch * jax.local_device_count()
    global_batch = rows_of_micro * jax.process_count()
    index = read_index(task.index)
    order = held_out_order(index, data=data, num_levels=num_levels, global_batch=global_batch)
    source = HeldOutSource(index, task.folders, data=data, seed=train.seed, held_out=order)
    chosen = source if encodings is None else EncodedSource(source, encodings)
    rows = rows_of_process(
        jax.process_index(), num_processes=jax.process_count(), rows_of_micro=rows_of_micro, global_batch=global_batch
    )

    def key(batch: int, member: int) -> HeldOutKey:
        row = order.row(batch, member)
        return HeldOutKey(int(index.content[row.picture]), row.level, row.counts)

    draws = HeldOutDraws(draw_plan(task, trainer), lambda batch: order.size(batch).shape, key, num_levels)
    tokenizers, workers = Tokenizers.of(task.model), task.job.run.workers

    def measure() -> float:
        with closing(SampleBatches[Any](chosen, global_batch=global_batch, members=rows, workers=workers)) as samples:
            maker = BatchMaker(samples, 1, tokenizers, draws)
            with Prefetch(maker, start=0, stop=order.num_batches, depth=2 if workers else 0) as batches:
                return summed(batches, trainer=trainer) * global_batch / order.num_rows

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

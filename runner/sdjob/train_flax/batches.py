"""The stream of a process's batches: pictures and captions, or what the encoders made of them, and draws of each step, made
ahead of it.

Axes: M micro-steps, B pictures of this process in one, H x W positions, C channels, T tokens.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from sdjob.data.index import read_index
from sdjob.data.prefetch import Prefetch, SampleBatches
from sdjob.data.samples import Sample, SampleSource
from sdjob.diffusion.batch_draws import BatchDraws, DrawsOf, with_prior
from sdjob.diffusion.draws import DrawPlan
from sdjob.encodings.reader import Encodings, with_axis, without_axis
from sdjob.encodings.samples import EncodedSample, EncodedSource
from sdjob.spec.task import TrainTask
from sdjob.train_flax.ahead import compile_ahead
from sdjob.train_flax.conditioning import Tokenizers
from sdjob.train_flax.setup import FlaxTrainer
from sdjob.train_flax.step import StepBatch

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class BatchMaker:
    """The batch of a process at a step: a pure function, with any number of threads."""

    samples: SampleBatches[Any]
    """Its members are the process's rows, micro-step after micro-step."""

    num_micro: int
    tokenizers: Tokenizers
    draws: DrawsOf

    def __call__(self, step: int) -> StepBatch:
        samples = self.samples.batch(step)
        drawn = self.draws(step, self.samples.members)
        pictures, captions = picture_arrays(samples), caption_arrays(samples, tokenizers=self.tokenizers)
        return StepBatch(
            pictures={name.replace("_CHW", "_MBHWC"): self._images(values_B) for name, values_B in pictures.items()},
            captions={with_axis(name, "MB"): self._split(values_B) for name, values_B in captions.items()},
            time_ids_MB6=self._split(np.array([sample.time_ids for sample in samples], np.float32)),
            timesteps_MB=self._split(drawn.timesteps_B.astype(np.int32)),
            signal_MB=self._split(drawn.signal_B),
            sigma_MB=self._split(drawn.sigma_B),
            loss_weight_MB=self._split(drawn.loss_weight_B),
            noise_MBHWC=self._images(drawn.noise_BCHW),
            input_noise_MBHWC=self._images(drawn.input_noise_BCHW),
            posterior_MBHWC=self._images(drawn.posterior_BCHW),
        )

    def _split(self, rows: NDArray[Any]) -> NDArray[Any]:
        return rows.reshape(self.num_micro, -1, *rows.shape[1:])

    def _images(self, images_BCHW: NDArray[Any]) -> NDArray[Any]:
        return self._split(np.ascontiguousarray(images_BCHW.transpose(0, 2, 3, 1)))


def picture_arrays(samples: Sequence[Sample] | Sequence[EncodedSample]) -> Arrays:
    """Under an entry's names, as are the captions'."""
    moments = [sample.picture for sample in samples if isinstance(sample, EncodedSample)]
    return stacked(moments) if moments else {"pixels_CHW": np.stack([s.pixels_CHW for s in samples if isinstance(s, Sample)])}


def caption_arrays(samples: Sequence[Sample] | Sequence[EncodedSample], *, tokenizers: Tokenizers) -> Arrays:
    states = [s.states for s in samples if isinstance(s, EncodedSample) and s.states is not None]
    if states:
        return stacked(states)
    captions = tokenizers.arrays([sample.caption for sample in samples])
    return {without_axis(name, "B"): values_B for name, values_B in captions.items()}


def stacked(entries: Sequence[Arrays]) -> Arrays:
    return {name: np.stack([entry[name] for entry in entries]) for name in entries[0]}


def rows_of_process(index: int, *, num_processes: int, rows_of_micro: int, global_batch: int) -> list[int]:
    """Micro-step m of process p takes rows (m * processes + p) * its rows and on: every row of the global batch once."""
    num_micro = global_batch // (rows_of_micro * num_processes)
    firsts = [(micro * num_processes + index) * rows_of_micro for micro in range(num_micro)]
    return [row for first in firsts for row in range(first, first + rows_of_micro)]


@contextmanager
def build_batches(task: TrainTask, *, trainer: FlaxTrainer, encodings: Encodings | None = None) -> Generator[Prefetch[StepBatch]]:
    train, prior, workers = task.job.train, task.job.data.prior, task.job.run.workers
    source = SampleSource(read_index(task.index), task.folders, data=task.job.data, seed=train.seed)
    rows_of_micro = train.device_batch * jax.local_device_count()
    rows = rows_of_process(
        jax.process_index(), num_processes=jax.process_count(), rows_of_micro=rows_of_micro, global_batch=train.global_batch
    )
    num_micro = len(rows) // rows_of_micro
    if prior is not None:
        rows = with_prior(rows, rows_of_micro=rows_of_micro, global_batch=train.global_batch)
    chosen = source if encodings is None else EncodedSource(source, encodings)
    samples = SampleBatches[Any](chosen, global_batch=train.global_batch, members=rows, workers=workers)
    draws = batch_draws(task, trainer, source=source)
    make: Callable[[int], StepBatch] = BatchMaker(samples, num_micro, Tokenizers.of(task.model), draws)
    with closing(samples), Prefetch(make, start=task.start_step, stop=task.total_steps, depth=2 if workers else 0) as batches:
        first_steps = source.order(train.global_batch).first_steps(task.start_step)
        if task.job.data.buckets is not None:
            compile_ahead(trainer.runner, ((step, make(step)) for step in first_steps.values() if step < task.total_steps))
            trainer.on_work()
        yield batches


def batch_draws(task: TrainTask, trainer: FlaxTrainer, *, source: SampleSource) -> BatchDraws:
    global_batch, prior = task.job.train.global_batch, task.job.data.prior
    order, plan = source.order(global_batch), DrawPlan.of(task, latent_shape=trainer.latent_shape)
    return BatchDraws(plan, lambda step: order.size(step).shape, global_batch, prior and prior.weight)

"""The stream of a rank's micro-batches: pictures and captions, or what the encoders made of them, and draws of each step, made
ahead of it."""

from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdjob.data.index import read_index
from sdjob.data.prefetch import Prefetch, SampleBatches
from sdjob.data.samples import Sample, SampleSource
from sdjob.diffusion.batch_draws import BatchDraws, DrawsOf, with_prior
from sdjob.diffusion.draws import DrawPlan
from sdjob.encodings.reader import Arrays, Encodings, with_axis
from sdjob.encodings.samples import EncodedSample, EncodedSource
from sdjob.spec.task import TrainTask
from sdjob.train_torch.conditioning import Tokenizers
from sdjob.train_torch.setup import TorchTrainer
from sdjob.train_torch.step import MicroBatch

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class BatchMaker:
    """The micro-batches of a rank at a step: a pure function, with any number of threads."""

    samples: SampleBatches[Any]
    """Its members are the rank's rows, micro-step after micro-step."""

    rows_of_micro: int
    tokenizers: Tokenizers
    draws: DrawsOf
    pin: bool

    def __call__(self, step: int) -> list[MicroBatch]:
        samples, members = self.samples.batch(step), self.samples.members
        rows, firsts = self.rows_of_micro, range(0, len(members), self.rows_of_micro)
        return [self._micro_batch(step, samples[i : i + rows], members[i : i + rows]) for i in firsts]

    def _micro_batch(self, step: int, samples: Sequence[Any], members: Sequence[int]) -> MicroBatch:
        tensors = {name: torch.from_numpy(values) for name, values in vars(self.draws(step, members)).items()}
        pictures, captions = picture_tensors(samples), caption_tensors(samples, tokenizers=self.tokenizers)
        time_ids_B6 = torch.tensor([s.time_ids for s in samples], dtype=torch.float32)
        micro = MicroBatch(pictures, captions, time_ids_B6, **tensors)
        return micro.pinned() if self.pin else micro


def picture_tensors(samples: Sequence[Sample] | Sequence[EncodedSample]) -> Tensors:
    moments = [sample.picture for sample in samples if isinstance(sample, EncodedSample)]
    if moments:
        return stacked(moments)
    return {"pixels_BCHW": torch.from_numpy(np.stack([s.pixels_CHW for s in samples if isinstance(s, Sample)]))}


def caption_tensors(samples: Sequence[Sample] | Sequence[EncodedSample], *, tokenizers: Tokenizers) -> Tensors:
    states = [s.states for s in samples if isinstance(s, EncodedSample) and s.states is not None]
    return stacked(states) if states else tokenizers.tensors([sample.caption for sample in samples])


def stacked(entries: Sequence[Arrays]) -> Tensors:
    return {with_axis(name, "B"): torch.from_numpy(np.stack([entry[name] for entry in entries])) for name in entries[0]}


def rows_of_rank(rank: int, *, num_ranks: int, device_batch: int, global_batch: int) -> list[int]:
    """Micro-step m of rank r takes rows (m * ranks + r) * device_batch and on: every row of the global batch once."""
    num_micro = global_batch // (device_batch * num_ranks)
    firsts = [(micro * num_ranks + rank) * device_batch for micro in range(num_micro)]
    return [row for first in firsts for row in range(first, first + device_batch)]


@contextmanager
def build_batches(
    task: TrainTask, *, trainer: TorchTrainer, encodings: Encodings | None = None
) -> Generator[Prefetch[list[MicroBatch]]]:
    train, prior, accelerator = task.job.train, task.job.data.prior, trainer.runner.accelerator
    source = SampleSource(read_index(task.index), task.folders, data=task.job.data, seed=train.seed)
    rows = rows_of_rank(
        accelerator.process_index,
        num_ranks=accelerator.num_processes,
        device_batch=train.device_batch,
        global_batch=train.global_batch,
    )
    if prior is not None:
        rows = with_prior(rows, rows_of_micro=train.device_batch, global_batch=train.global_batch)
    workers = task.job.run.workers
    chosen = source if encodings is None else EncodedSource(source, encodings)
    samples = SampleBatches[Any](chosen, global_batch=train.global_batch, members=rows, workers=workers)
    rows_of_micro = train.device_batch * (1 if prior is None else 2)
    draws = batch_draws(task, trainer, source=source)
    # Its own tokenizers: they keep their last call's padding, so validation must not share them with the prefetch thread.
    maker = BatchMaker(samples, rows_of_micro, Tokenizers.of(task.model), draws, pin=task.device == "cuda")
    with (
        closing(samples),
        Prefetch(maker, start=task.start_step, stop=task.total_steps, depth=2 if workers else 0) as batches,
    ):
        yield batches


def batch_draws(task: TrainTask, trainer: TorchTrainer, *, source: SampleSource) -> BatchDraws:
    global_batch, prior = task.job.train.global_batch, task.job.data.prior
    order, plan = source.order(global_batch), DrawPlan.of(task, latent_shape=trainer.latent_shape)
    return BatchDraws(plan, lambda step: order.size(step).shape, global_batch, prior and prior.weight)

"""The loss on the held-out pictures: at the same noise each time, of the weights that would be published now."""

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import torch

from sdjob.data.prefetch import Prefetch, SampleBatches
from sdjob.encodings.held_out import held_out_of
from sdjob.encodings.reader import Encodings
from sdjob.spec.task import TrainTask
from sdjob.train_torch.batches import BatchMaker, rows_of_rank
from sdjob.train_torch.conditioning import Tokenizers
from sdjob.train_torch.ranks import peers_answer
from sdjob.train_torch.setup import TorchTrainer
from sdjob.train_torch.step import MicroBatch, loss_of


def measure_of(task: TrainTask, *, trainer: TorchTrainer, encodings: Encodings | None = None) -> Callable[[], float] | None:
    """What computes the loss, on all ranks together; None where nothing is held out."""
    train, accelerator = task.job.train, trainer.runner.accelerator
    if task.job.data.held_out is None:
        return None
    ranks, global_batch = accelerator.num_processes, train.device_batch * accelerator.num_processes
    held_out = held_out_of(task, global_batch=global_batch, latent_shape=trainer.latent_shape, encodings=encodings)
    rows = rows_of_rank(accelerator.process_index, num_ranks=ranks, device_batch=train.device_batch, global_batch=global_batch)
    tokenizers, workers = Tokenizers.of(task.model), task.job.run.workers

    def measure() -> float:
        with closing(SampleBatches[Any](held_out.samples, global_batch=global_batch, members=rows, workers=workers)) as samples:
            maker = BatchMaker(samples, train.device_batch, tokenizers, held_out.draws, pin=task.device == "cuda")
            with Prefetch(maker, start=0, stop=held_out.num_batches, depth=2 if workers else 0) as batches:
                return held_out.mean(summed(batches, trainer=trainer))

    return measure


@torch.no_grad()
def summed(batches: Iterable[list[MicroBatch]], *, trainer: TorchTrainer) -> float:
    """Over the batches the mean of each one's rows, of all ranks."""
    runner = trainer.runner
    accelerator = runner.accelerator
    total = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    with trainer.averaged_weights(), accelerator.autocast(), trainer.uncompiled():
        runner.models.train(False)
        for (micro,) in batches:
            total += loss_of(runner.models, micro.to(accelerator.device)).double()
        runner.models.train(True)
    if accelerator.num_processes > 1:
        with peers_answer():
            torch.distributed.all_reduce(total)
        total /= accelerator.num_processes
    return float(total)

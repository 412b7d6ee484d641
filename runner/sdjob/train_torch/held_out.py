"""The loss on the held-out pictures: at the same noise each time, of the weights that would be published now."""

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import torch

from sdjob.data.held_out import HeldOutSource, held_out_order
from sdjob.data.index import read_index
from sdjob.data.prefetch import Prefetch, SampleBatches
from sdjob.diffusion.held_out_draws import HeldOutDraws, HeldOutKey
from sdjob.encodings.reader import Encodings
from sdjob.encodings.samples import EncodedSource
from sdjob.spec.job import loss_timesteps
from sdjob.spec.task import TrainTask
from sdjob.train_torch.batches import BatchMaker, draw_plan, rows_of_rank
from sdjob.train_torch.conditioning import Tokenizers
from sdjob.train_torch.ranks import peers_answer
from sdjob.train_torch.setup import TorchTrainer
from sdjob.train_torch.step import MicroBatch, loss_of


def measure_of(task: TrainTask, *, trainer: TorchTrainer, encodings: Encodings | None = None) -> Callable[[], float] | None:
    """What computes the loss, on all ranks together; None where nothing is held out."""
    data, train, accelerator = task.job.data, task.job.train, trainer.runner.accelerator
    if data.held_out is None:
        return None
    num_levels, ranks = loss_timesteps(task.job), accelerator.num_processes
    global_batch = train.device_batch * ranks
    index = read_index(task.index)
    order = held_out_order(index, data=data, num_levels=num_levels, global_batch=global_batch)
    source = HeldOutSource(index, task.folders, data=data, seed=train.seed, held_out=order)
    chosen = source if encodings is None else EncodedSource(source, encodings)
    rows = rows_of_rank(accelerator.process_index, num_ranks=ranks, device_batch=train.device_batch, global_batch=global_batch)

    def key(batch: int, member: int) -> HeldOutKey:
        row = order.row(batch, member)
        return HeldOutKey(int(index.content[row.picture]), row.level, row.counts)

    draws = HeldOutDraws(draw_plan(task, trainer), lambda batch: order.size(batch).shape, key, num_levels)
    tokenizers, workers = Tokenizers.of(task.model), task.job.run.workers

    def measure() -> float:
        with closing(SampleBatches[Any](chosen, global_batch=global_batch, members=rows, workers=workers)) as samples:
            maker = BatchMaker(samples, train.device_batch, tokenizers, draws, pin=task.device == "cuda")
            with Prefetch(maker, start=0, stop=order.num_batches, depth=2 if workers else 0) as batches:
                return summed(batches, trainer=trainer) * global_batch / order.num_rows

    return measure


@torch.no_grad()
def summed(batches: Iterable[list[MicroBatch]], *, trainer: TorchTrainer) -> float:
    """Over the batches the mean of each one's rows, of all ranks."""
    runner = trainer.runner
    accelerator = runner.accelerator
    total = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    with trainer.averaged_weights(), accelerator.autocast():
        runner.models.train(False)
        for (micro,) in batches:
            total += loss_of(runner.models, micro.to(accelerator.device)).double()
        runner.models.train(True)
    if accelerator.num_processes > 1:
        with peers_answer():
            torch.distributed.all_reduce(total)
        total /= accelerator.num_processes
    return float(total)

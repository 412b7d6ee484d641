"""The held-out pictures as a trainer asks for them, of either backend: which rows, under which noise, as pixels or as encoded."""

from dataclasses import dataclass

from sdjob.data.held_out import HeldOutOrder, HeldOutSource, held_out_order
from sdjob.data.index import read_index
from sdjob.diffusion.draws import DrawPlan
from sdjob.diffusion.held_out_draws import HeldOutDraws, HeldOutKey
from sdjob.encodings.reader import Encodings
from sdjob.encodings.samples import EncodedSource
from sdjob.spec.job import loss_timesteps
from sdjob.spec.task import TrainTask


@dataclass(frozen=True)
class HeldOut:
    order: HeldOutOrder
    samples: HeldOutSource | EncodedSource
    draws: HeldOutDraws

    @property
    def num_batches(self) -> int:
        return self.order.num_batches

    def mean(self, total: float) -> float:
        """Over all rows; `total` is the sum over batches of the mean of each one's rows, those included that do not count."""
        return total * self.order.global_batch / self.order.num_rows


def held_out_of(
    task: TrainTask, *, global_batch: int, latent_shape: tuple[int, int, int], encodings: Encodings | None
) -> HeldOut:
    data, num_levels, index = task.job.data, loss_timesteps(task.job), read_index(task.index)
    order = held_out_order(index, data=data, num_levels=num_levels, global_batch=global_batch)
    source = HeldOutSource(index, task.folders, data=data, seed=task.job.train.seed, held_out=order)

    def key(batch: int, member: int) -> HeldOutKey:
        row = order.row(batch, member)
        return HeldOutKey(int(index.content[row.picture]), row.level, row.counts)

    plan = DrawPlan.of(task, latent_shape=latent_shape)
    draws = HeldOutDraws(plan, lambda batch: order.size(batch).shape, key, num_levels)
    return HeldOut(order, source if encodings is None else EncodedSource(source, encodings), draws)

"""One optimizer step on torch: micro-batches, the reduction over ranks, clipping, update, EMA.

Gradients are reduced as flat buffers in the order of names, and not by DDP: DDP groups gradients into buckets that it
lays out anew after its first backward, so that a resumed run would add up in another order than the straight one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from sdjob.core.errors import UnsoundError
from sdjob.core.streams import stream
from sdjob.diffusion.latents import LatentFacts
from sdjob.diffusion.learning_rate import LearningRate
from sdjob.loop import SaveWord, StepMetrics
from sdjob.train_torch.conditioning import TextEncoders, added_conditions
from sdjob.train_torch.encode import drawn_latents, encode_pictures
from sdjob.train_torch.optimizer import set_rate
from sdjob.train_torch.ranks import peers_answer
from sdjob.train_torch.sharding import gradients_of, total_norm
from sdjob.train_torch.state import TrainState

MAX_OVERFLOWS = 50  # in a row; fp16's loss scale has then fallen by 2^50 and the run is lost
BUCKET_NUMEL = 16 * 2**20  # 64 MiB of float32: long enough that the network's latency does not count


@dataclass(frozen=True)
class MicroBatch:
    """What one device sees at once. Axes: B pictures, C channels, H x W positions, E text encoders, T tokens."""

    pictures: dict[str, Tensor]
    """`pixels_BCHW`; or, encoded before the training, `mean_BCHW` and `log_variance_BCHW`."""

    captions: dict[str, Tensor]
    """`ids_BET` and `told_B`; or, encoded before the training, `states_BTD` and of SDXL `pooled_BP`."""

    time_ids_B6: Tensor
    """What SDXL is told of sizes and crop."""

    timesteps_B: Tensor
    signal_B: Tensor
    sigma_B: Tensor
    loss_weight_B: Tensor
    noise_BCHW: Tensor
    input_noise_BCHW: Tensor
    posterior_BCHW: Tensor

    def to(self, device: torch.device) -> "MicroBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "MicroBatch":
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        named: dict[str, Any] = {
            name: {inner: change(tensor) for inner, tensor in value.items()} if isinstance(value, dict) else change(value)
            for name, value in vars(self).items()
        }
        return MicroBatch(**named)


@dataclass(frozen=True)
class Models:
    unet: UNet2DConditionModel
    vae: AutoencoderKL | None
    text: TextEncoders
    """Without parts, as the VAE is None, where they have run before the training."""

    latents: LatentFacts
    predicts_velocity: bool

    def train(self, mode: bool) -> None:
        self.unet.train(mode)
        self.text.train(mode)


def latents_of(models: Models, micro: MicroBatch) -> Tensor:
    """Of moments that came with the batch, or of what the VAE makes of its pixels."""
    moments = micro.pictures if models.vae is None else encode_pictures(models.vae, micro.pictures["pixels_BCHW"])
    return drawn_latents(moments, posterior_BCHW=micro.posterior_BCHW, scaling_factor=models.latents.scaling_factor)


def states_of(models: Models, micro: MicroBatch) -> dict[str, Tensor]:
    """What came with the batch, or what the text encoder makes of its tokens."""
    captions = micro.captions
    return models.text.encode(captions["ids_BET"], told_B=captions["told_B"]) if "ids_BET" in captions else captions


def loss_of(models: Models, micro: MicroBatch) -> Tensor:
    """Weighted mean squared error of a micro-batch, a float32 scalar."""
    latents, told = latents_of(models, micro), states_of(models, micro)
    signal, sigma = micro.signal_B[:, None, None, None], micro.sigma_B[:, None, None, None]
    noisy = signal * latents + sigma * micro.input_noise_BCHW
    target = signal * micro.noise_BCHW - sigma * latents if models.predicts_velocity else micro.noise_BCHW
    added = added_conditions(told, micro.time_ids_B6)
    predicted = models.unet(noisy, micro.timesteps_B, told["states_BTD"], added_cond_kwargs=added, return_dict=False)[0]
    errors_B = F.mse_loss(predicted.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
    return (errors_B * micro.loss_weight_B).mean()


def buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in their order, in groups of about BUCKET_NUMEL elements: a copy of all at once would double them."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(g.numel() for g in bucket) >= BUCKET_NUMEL:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


class Arrival(Protocol):
    """torch.cuda.Event, as far as it is used."""

    def synchronize(self) -> None: ...


def sent_to_host(figures: Tensor) -> dict[str, Any]:
    """What PendingMetrics takes. Read from the device itself, figures would be waited for behind the steps that came after."""
    if not figures.is_cuda:
        return {"figures": figures}
    arrival = torch.cuda.Event()
    on_host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True).copy_(figures, non_blocking=True)
    arrival.record()
    return {"figures": on_host, "arrival": arrival, "device": figures.device}


@dataclass
class PendingMetrics:
    """A step's figures, on the host or on their way to it."""

    figures: Tensor
    """(loss, number of ranks asked to stop, rank 0's word of saves, gradient norm), float64."""

    learning_rate: float
    step: int
    overflows: int
    """fp16 steps in a row, this one included, whose gradients overflowed."""

    arrival: "Arrival | None" = None
    """None: they are here."""

    device: torch.device | None = None

    @property
    def is_here(self) -> bool:
        return self.arrival is None

    def read(self) -> StepMetrics:
        if self.arrival is not None:
            self.arrival.synchronize()
        loss, stops, word, norm = self.figures.tolist()
        if self.overflows:
            norm = 0.0  # of what was applied: the update was skipped, the state is sound and may be committed
        metrics = StepMetrics(
            loss=loss,
            grad_norm=norm,
            learning_rate=self.learning_rate,
            stop=stops > 0,
            overflows=self.overflows,
            device_memory_mib=torch.cuda.max_memory_allocated(self.device) // 2**20 if self.device is not None else None,
            save_word=SaveWord(int(word)),
        )
        if not self.overflows and not all(map(math.isfinite, (loss, norm))):
            raise UnsoundError(
                f"loss {loss} and gradient norm {norm} at step {self.step + 1}: training has diverged.",
                next_step="Lower train.optimizer.learning_rate, or set max_grad_norm; what is committed stands.",
            )
        return metrics


@dataclass
class StepRunner:
    """Holds what one step needs beside its batch."""

    accelerator: Accelerator
    models: Models
    state: TrainState
    learning_rate: LearningRate
    max_grad_norm: float | None
    dropout_seed: int | None
    """Set where LoRA dropout is on: torch's generator is then seeded from (seed, step, micro-step, rank)."""

    overflows: int = 0

    def run(
        self, micro_batches: Sequence[MicroBatch], *, step: int, stop_wanted: bool, save_word: SaveWord = SaveWord.NOTHING
    ) -> PendingMetrics:
        rate = self.learning_rate.at(step)
        told = set_rate(self.state.optimizer, rate)
        loss = self._backward(micro_batches, step=step)
        figures = self._reduce(loss, told=(float(stop_wanted), float(save_word)))
        norm = self._clip()
        self._update()
        figures = torch.cat([figures, norm.to(figures)[None]])
        return PendingMetrics(**sent_to_host(figures), learning_rate=told, step=step, overflows=self.overflows)

    def _backward(self, micro_batches: Sequence[MicroBatch], *, step: int) -> Tensor:
        total = torch.zeros((), device=self.accelerator.device)
        for number, micro in enumerate(micro_batches):
            if self.dropout_seed is not None:
                rank = self.accelerator.process_index
                torch.manual_seed(int(stream(self.dropout_seed, "dropout", step, number, rank).integers(2**63)))
            with self.accelerator.autocast():
                loss = loss_of(self.models, micro.to(self.accelerator.device)) / len(micro_batches)
            (self.state.scaler.scale(loss) if self.state.scaler else loss).backward()
            total += loss.detach()
        return total

    def _reduce(self, loss: Tensor, *, told: Sequence[float]) -> Tensor:
        """Means gradients over the ranks, in place; returns the mean loss, and what the ranks tell one another, added up."""
        # Filled on the device: a tensor made of the host's number would be copied there, and wait for what is queued.
        filled = [torch.full((), number, dtype=torch.float64, device=loss.device) for number in told]
        figures = torch.stack([loss.double(), *filled])
        ranks = self.accelerator.num_processes
        if ranks == 1:
            return figures
        with peers_answer():
            if self.state.shards is not None:
                self.state.shards.collect()
            else:
                self._reduce_gradients(ranks)
            torch.distributed.all_reduce(figures)
        figures[0] /= ranks
        return figures

    def _reduce_gradients(self, ranks: int) -> None:
        for gradients in buckets(gradients_of(self.state.parameters.values())):
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            torch.distributed.all_reduce(flat)
            flat /= ranks
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def _clip(self) -> Tensor:
        shards = self.state.shards
        if self.state.scaler:
            if shards is not None:
                shards.share_overflow()
            self.state.scaler.unscale_(self.state.optimizer)
        limit = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        parameters = self.state.parameters.values()
        norm = total_norm(parameters) if shards is None else shards.total_norm()
        # On a CPU the norm is here: gradients need not be multiplied by one. A GPU would have to be waited for, and a tensor of a
        # kind of its own may have no number.
        if norm.is_cuda or type(norm) is not Tensor or norm + 1e-6 > limit:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm

    def _update(self) -> None:
        if self.state.scaler:
            self._scaled_update(self.state.scaler)
        else:
            self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        if self.state.ema is not None:
            self.state.ema.step(self.state.parameters.values())

    def _scaled_update(self, scaler: "torch.amp.grad_scaler.GradScaler") -> None:
        before = scaler.get_scale()
        scaler.step(self.state.optimizer)
        scaler.update()
        self.overflows = self.overflows + 1 if scaler.get_scale() < before else 0
        if self.overflows >= MAX_OVERFLOWS:
            raise UnsoundError(
                f"fp16 gradients overflowed in {MAX_OVERFLOWS} steps in a row.", next_step="Set train.precision to bf16 or fp32."
            )

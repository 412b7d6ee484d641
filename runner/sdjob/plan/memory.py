"""What one device holds at the peak of a step, part by part, against what it has. The same sum judges changes (plan/changes.py).

torch: held to the trainer's own step on tensors without numbers (train_torch/forecast.py); flax on a TPU: to what libtpu's
compiler says of the real program. benchmarks/plan_memory.py prints both tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

from sdjob.diffusion.text_encoders import LORA_TARGETS, spelled
from sdjob.plan.activations import Numbers, block_of
from sdjob.plan.backward import Pass, Peak, peak_of
from sdjob.plan.models import KnownModel
from sdjob.plan.network import Layer
from sdjob.plan.work import Adapters
from sdjob.spec.encoders import captions_run_once, pictures_run_once
from sdjob.spec.hardware import Accelerator, num_devices, parse_accelerator, resolve_precision
from sdjob.spec.job import JobSpec
from sdjob.spec.train import LoraSpec, TrainSpec

# Bytes a trained number. AdamW: two moments. 8-bit: https://huggingface.co/docs/bitsandbytes/main/en/optimizers. Adafactor: means
# of rows and columns (arXiv 1804.04235), next to nothing. Prodigy: two moments, the start and a sum beside them (arXiv
# 2306.06101).
MOMENT_BYTES = {"adamw": 8, "adamw8bit": 2, "adafactor": 0, "prodigy": 16}
FLOAT32_BYTES = MASTER_BYTES = GRADIENT_BYTES = EMA_BYTES = 4
# What a driver leaves of a card's memory: 22888 of 24576 MiB, as EC2 lists L4s and A10Gs (describe-instance-types: g6, g5).
GPU_USABLE = 22888 / 24576
# What libtpu gives a program: 15.75 of v5e's 16 GiB, 31.24 of v6e's 32 (tests/parity/test_flax_forecast.py).
TPU_USABLE = 15.75 / 16
# CUDA's context and the workspaces of its libraries: a round number above what is commonly seen, 0.3 to 0.6 GiB.
CUDA_WORKSPACE = 0.75 * 2**30
# Blocks that the allocator cannot use again for other shapes.
FRAGMENTED_SHARE = 0.05
TPU_TILE = 128  # https://openxla.org/xla/tiled_layout: of the minor dimension, which is the channels'
BUCKET_BYTES = 64 * 2**20  # gradients are reduced in flat buffers of this size: train_torch/step.py


@dataclass(frozen=True)
class Memory:
    """Bytes of one device."""

    parts: dict[str, int]
    capacity: int | None
    """None where the hardware is not named."""

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool | None:
        return None if self.capacity is None else self.needed <= self.capacity


def memory_of(job: JobSpec, *, model: KnownModel) -> Memory:
    """Parts that are nothing are left out."""
    device = DeviceSum(job, model, parse_accelerator(job.run.accelerator))
    parts = {name: round(size) for name, size in device.parts().items() if size >= 1}
    return Memory(parts, device.capacity)


def spread_over(train: TrainSpec, *, machine: Accelerator) -> int:
    """flax spreads the state over the devices of a host, and torch where it is asked to; else each has all of it."""
    return machine.devices_per_node if train.backend == "flax" or train.fsdp else 1


def adapters_of(train: TrainSpec) -> Adapters | None:
    return lora_of(train.lora, targets=train.lora.targets) if train.method == "lora" else None


def lora_of(lora: LoraSpec, *, targets: tuple[str, ...]) -> Adapters:
    return Adapters(lora.rank, targets, tuple(lora.rank_pattern.items()), lora.dora)


def trained_params(layers: Sequence[Layer], *, train: TrainSpec) -> int:
    adapters = adapters_of(train)
    return adapters.params(layers) if adapters else sum(layer.params for layer in layers)


def text_trained(job: JobSpec, *, model: KnownModel) -> int:
    """Numbers of the text encoders that are trained."""
    if job.train.text_encoder == "full":
        return model.text_params
    if job.train.text_encoder == "frozen":
        return 0
    layers = (replace(layer, name=spelled(layer.name)) for layer in model.text_layers)  # as patterns are for
    return lora_of(job.train.lora, targets=LORA_TARGETS).params(layers)


@lru_cache(maxsize=64)
def kept_peak(model: KnownModel, *, width: int, height: int, run: Pass) -> Peak:
    """Most changes that are tried leave the pass as it is."""
    return peak_of(model.unet(width=width, height=height), run=run)


@dataclass(frozen=True)
class DeviceSum:
    job: JobSpec
    model: KnownModel
    machine: Accelerator

    @property
    def capacity(self) -> int | None:
        gib = self.machine.device_memory_gib
        if gib is None:
            return None
        return int(gib * 2**30 * (TPU_USABLE if self.machine.kind == "tpu" else GPU_USABLE))

    @property
    def layers(self) -> Sequence[Layer]:
        resolution = self.job.data.resolution
        return self.model.unet(width=resolution.width, height=resolution.height)

    @property
    def width(self) -> int:
        """Bytes of a number that is computed with."""
        return 4 if resolve_precision(self.job.train.precision, accelerator=self.machine) == "fp32" else 2

    @property
    def numbers(self) -> Numbers:
        if self.job.train.backend == "flax":
            tile = TPU_TILE if self.machine.kind == "tpu" else 1
            return Numbers(in_products=self.width, in_norms=self.width, tile=tile, keeps_for_frozen=False)
        widened = self.width == 2 and self.machine.kind == "nvidia"
        return Numbers(in_products=self.width, in_norms=4 if widened else self.width)

    @property
    def pictures(self) -> int:
        """Of one micro-step; a prior's come on top."""
        return self.job.train.device_batch * (2 if self.job.data.prior else 1)

    @property
    def accumulates(self) -> bool:
        run, train = self.job.run, self.job.train
        return train.global_batch > train.device_batch * num_devices(self.machine, nodes=run.nodes, slices=run.slices)

    @property
    def spread_over(self) -> int:
        return spread_over(self.job.train, machine=self.machine)

    def parts(self) -> dict[str, float]:
        train, layers = self.job.train, self.layers
        trained = trained_params(layers, train=train) + text_trained(self.job, model=self.model)
        base = sum(layer.params for layer in layers)
        return {
            "weights": self.width * (base if train.method == "lora" else 0) + MASTER_BYTES * trained / self.spread_over,
            "moments": MOMENT_BYTES[train.optimizer.name] * trained / self.spread_over,
            "ema": EMA_BYTES * trained / self.spread_over if train.ema and not train.ema.offload else 0,
            "encoders": self.encoders(),
            **self.passing_parts(layers),
        }

    def passing_parts(self, layers: Sequence[Layer]) -> dict[str, float]:
        """What is there at the peak alone: of a step, or of drawing for a validation, when no gradients are left."""
        peak, encoding, drawing = self.peak(), self.encoding(), self.drawing()
        gradients = peak.gradients + GRADIENT_BYTES * text_trained(self.job, model=self.model) / self.spread_over
        in_between = max(peak.activations, encoding - peak.gradients) + self.kept_of_text()
        if drawing > gradients + in_between:
            return {"drawing": drawing, "workspace": self.workspace(layers, in_between=drawing)}
        workspace = self.workspace(layers, in_between=in_between)
        return {"gradients": gradients, "activations": in_between, "workspace": workspace}

    def peak(self) -> Peak:
        train, on_flax = self.job.train, self.job.train.backend == "flax"
        return kept_peak(
            self.model,
            width=self.job.data.resolution.width,
            height=self.job.data.resolution.height,
            run=Pass(
                method=train.method,
                adapters=adapters_of(train),
                pictures=self.pictures,
                numbers=self.numbers,
                copies_weights=self.width == 2 and self.spread_over == 1 and not on_flax,
                checkpointing=train.gradient_checkpointing,
                accumulates=self.accumulates,
                # XLA has them as narrow as the products that make them; it puts off those of a block's weights, for which the
                # gradients within the block are kept beside what they are multiplied with.
                gradient_bytes=(self.width if on_flax and not self.accumulates else GRADIENT_BYTES) / self.spread_over,
                gradients_beside=on_flax,
            ),
        )

    def encoders(self) -> float:
        """Those that run at every step, as far as they are frozen, in the compute precision."""
        vae = 0 if pictures_run_once(self.job) else self.model.vae_params
        frozen_text = 0 if captions_run_once(self.job) or self.job.train.text_encoder == "full" else self.model.text_params
        return self.width * (vae + frozen_text)

    def kept_of_text(self) -> float:
        """By text encoders that learn: their inputs of each layer, and of CLIP's activation between two of them three more."""
        if self.job.train.text_encoder == "frozen":
            return 0
        kept = 0
        for layer in self.model.text_layers:
            if self.job.train.gradient_checkpointing:
                kept += layer.inputs if layer.name.endswith("layer_norm1") else 0
            elif layer.kind in {"norm", "attention"}:
                kept += layer.inputs + (layer.outputs if layer.kind == "attention" else 0)
            elif layer.name.endswith(("q_proj", "fc1", "fc2")):
                kept += layer.inputs * (3 if layer.name.endswith("fc2") else 1)
        return self.pictures * self.width * kept

    def encoding(self) -> float:
        """The VAE at its widest: the largest map as input, as two results in between, and once more around the norm."""
        if pictures_run_once(self.job):
            return 0
        resolution, numbers = self.job.data.resolution, self.numbers
        layers = self.model.vae_encoder(width=resolution.width, height=resolution.height)
        largest = max(layer.outputs for layer in layers)
        return self.pictures * largest * (3 * numbers.in_products + (2 if numbers.widened else 1) * numbers.in_norms)

    def drawing(self) -> float:
        """A picture of a validation as it is decoded: the widest map as it comes, and twice around a norm; and the
        encoders that the training itself does without. SDXL's VAE computes in float32."""
        asked, resolution, numbers = self.job.validation, self.job.data.resolution, self.numbers
        if asked is None or self.job.train.backend == "flax":
            return 0
        wide = 3 * FLOAT32_BYTES if self.model.is_sdxl else numbers.in_products + 2 * numbers.in_norms
        widest = self.model.shape.vae["block_out_channels"][:2][-1] * resolution.width * resolution.height
        brought = (self.model.vae_params if pictures_run_once(self.job) else 0) + (
            self.model.text_params if captions_run_once(self.job) else 0
        )
        return widest * wide + self.width * brought

    def workspace(self, layers: Sequence[Layer], *, in_between: float) -> float:
        gathered = self.gathered(layers)
        if self.job.train.backend == "flax":
            return gathered
        reduced = BUCKET_BYTES if self.machine.devices * self.job.run.nodes > 1 and not gathered else 0
        context = CUDA_WORKSPACE if self.machine.kind == "nvidia" else 0
        return context + FRAGMENTED_SHARE * in_between * (self.machine.kind == "nvidia") + reduced + gathered

    def gathered(self, layers: Sequence[Layer]) -> float:
        """The largest block's weights whole, gathered from the devices that they are spread over, and their gradients."""
        if self.spread_over == 1 or self.job.train.method == "lora":
            return 0
        blocks = (list(group) for block, group in groupby(layers, key=block_of) if block)
        return 2 * MASTER_BYTES * max(sum(layer.params for layer in group) for group in blocks)

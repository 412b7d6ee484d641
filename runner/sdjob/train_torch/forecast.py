"""What a job's step will need of its device on torch: the trainer's own step, on tensors that have shapes and no numbers.

`python -m sdjob.train_torch.forecast TASK.json` prints a Footprint as one line of JSON; the model's folder need have nothing but
its configurations. What the allocator loses between its blocks, and CUDA's own context, are not in it.
"""

import argparse
import json
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.models.modeling_utils import ModelMixin
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPTextConfig, PreTrainedModel

from sdjob.core.errors import SdjobError, UsageError
from sdjob.diffusion.family import read_base_model
from sdjob.diffusion.text_encoders import TEXT_PARTS
from sdjob.spec.encoders import captions_run_once, pictures_run_once
from sdjob.spec.hardware import parse_accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.task import TrainTask, read_task
from sdjob.train_torch.meter import Meter
from sdjob.train_torch.setup import build_models, build_runner
from sdjob.train_torch.step import MicroBatch, Models, StepRunner


@dataclass(frozen=True)
class Footprint:
    """Of one device, in the second step: AdamW makes its moments at the end of the first."""

    peak_bytes: int
    parts: dict[str, int]
    """What the peak is made of."""

    flops: int
    """Of one optimizer step, in products, convolutions and attention, recomputation included."""


def forecast(task: TrainTask, *, numbers: bool = False) -> Footprint:
    """With `numbers` the step is really made, on random weights: what the forecast is held against."""
    meter = Meter()
    mode = nullcontext() if numbers else FakeTensorMode(allow_non_fake_inputs=True)
    with mode, without_weights(), rounded_as_on_cuda(task), meter:
        runner, batch = built(task, meter=meter)
        runner.run(batch, step=0, stop_wanted=False)
        meter.start_again()
        runner.run(batch, step=1, stop_wanted=False)
    return Footprint(meter.peak_bytes, meter.parts_at_peak, meter.flops)


def built(task: TrainTask, *, meter: Meter) -> tuple[StepRunner, list[MicroBatch]]:
    """The real runner, each tensor of whose state is known to the meter by its part."""
    precision = task.job.train.precision
    # A loss scale is a number that decides whether the step is made, and here are no numbers; fp16 is as wide as bf16.
    narrow = "no" if precision == "fp32" else "bf16"
    accelerator = Accelerator(cpu=True, mixed_precision=narrow)
    with meter.part("encoders"):
        models = build_models(with_bf16(task), accelerator=accelerator)
        models = without_those_that_ran_before(models, job=task.job)
    trained = [models.unet, *(models.text.parts.values() if models.text.training != "frozen" else ())]
    meter.name("weights", (parameter for model in trained for parameter in model.parameters()))
    with meter.part("moments"):
        runner = build_runner(with_bf16(task), accelerator=accelerator, models=models)
    for parameter in runner.state.parameters.values():
        parameter.register_post_accumulate_grad_hook(lambda trained: meter.name("gradients", [trained.grad]))
    runner.state.optimizer.register_step_post_hook(lambda optimizer, *_: meter.name("moments", tensors_of(optimizer)))
    ema = task.job.train.ema
    if ema is not None and not ema.offload:
        with meter.part("ema"):
            runner.state.ema = EMAModel(runner.state.parameters.values(), decay=ema.decay)
    with meter.part("batch"):
        batch = [micro_batch(task, models=models) for _ in range(num_micro(task))]
    return runner, batch


def with_bf16(task: TrainTask) -> TrainTask:
    if task.job.train.precision != "fp16":
        return task
    train = task.job.train.model_copy(update={"precision": "bf16"})
    return TrainTask(**{**vars(task), "job": task.job.model_copy(update={"train": train})})


def tensors_of(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [value for state in optimizer.state.values() for value in state.values()]


def num_micro(task: TrainTask) -> int:
    run, train = task.job.run, task.job.train
    machine = parse_accelerator(run.accelerator)
    return train.global_batch // (train.device_batch * machine.devices * run.nodes)


def without_those_that_ran_before(models: Models, *, job: JobSpec) -> Models:
    parts: dict[str, Any] = {}
    if pictures_run_once(job):
        parts["vae"] = None
    if captions_run_once(job):
        parts["text"] = replace(models.text, parts={})
    return replace(models, **parts)


def micro_batch(task: TrainTask, *, models: Models) -> MicroBatch:
    beside = 1 if task.job.data.prior is None else 2
    rows, resolution = beside * task.job.train.device_batch, task.job.data.resolution
    latents = (rows, *models.latents.shape(width=resolution.width, height=resolution.height))
    scalars = torch.ones(rows)
    return MicroBatch(
        pictures=pictures(task, latents=latents),
        captions=captions(task, rows=rows),
        time_ids_B6=torch.zeros(rows, 6),
        timesteps_B=torch.zeros(rows, dtype=torch.int64),
        signal_B=scalars,
        sigma_B=scalars,
        loss_weight_B=scalars,
        noise_BCHW=torch.zeros(latents),
        input_noise_BCHW=torch.zeros(latents),
        posterior_BCHW=torch.zeros(latents),
    )


def pictures(task: TrainTask, *, latents: tuple[int, ...]) -> dict[str, Tensor]:
    resolution = task.job.data.resolution
    if pictures_run_once(task.job):
        return {name: torch.zeros(latents, dtype=encoded_as(task)) for name in ("mean_BCHW", "log_variance_BCHW")}
    return {"pixels_BCHW": torch.zeros(latents[0], 3, resolution.height, resolution.width)}


def captions(task: TrainTask, *, rows: int) -> dict[str, Tensor]:
    family = read_base_model(task.model).family
    configs = [CLIPTextConfig.from_pretrained(task.model, subfolder=part) for part in TEXT_PARTS[family]]
    tokens, width = configs[0].max_position_embeddings, sum(config.hidden_size for config in configs)
    if not captions_run_once(task.job):
        return {"ids_BET": torch.zeros(rows, len(configs), tokens, dtype=torch.int64), "told_B": torch.ones(rows)}
    encoded = {"states_BTD": torch.zeros(rows, tokens, width, dtype=encoded_as(task))}
    if family == "sdxl":
        projected: Any = configs[-1].projection_dim
        encoded["pooled_BP"] = torch.zeros(rows, projected, dtype=encoded_as(task))
    return encoded


def encoded_as(task: TrainTask) -> torch.dtype:
    """As the encoders compute."""
    return torch.float32 if task.job.train.precision == "fp32" else torch.bfloat16


# ---- where the fake differs ------------------------------------------------------------------------------------------------


@contextmanager
def without_weights() -> Generator[None]:
    """Models are made of their configurations, at once in the type and on the device that they would be brought to."""

    def of_diffusers(cls: Any, folder: Path, *, subfolder: str = "", dtype: torch.dtype, **_: Any) -> Any:
        with default_dtype(dtype):
            return cls.from_config(cls.load_config(folder, subfolder=subfolder))

    def of_transformers(cls: Any, folder: Path, *, subfolder: str = "", dtype: torch.dtype, **_: Any) -> Any:
        with default_dtype(dtype):
            return cls(cls.config_class.from_pretrained(folder, subfolder=subfolder))

    def there_already(module: Any, *_: Any, **__: Any) -> Any:
        return module

    with ExitStack() as patches:
        patches.enter_context(patch.object(ModelMixin, "from_pretrained", classmethod(of_diffusers)))
        patches.enter_context(patch.object(PreTrainedModel, "from_pretrained", classmethod(of_transformers)))
        for kind in (torch.nn.Module, ModelMixin, PreTrainedModel):
            patches.enter_context(patch.object(kind, "to", there_already))
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Generator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def rounded_as_on_cuda(task: TrainTask) -> Generator[None]:
    """CUDA's autocast computes norms in float32, that of CPUs does not:
    https://docs.pytorch.org/docs/stable/amp.html#cuda-ops-that-can-autocast-to-float32
    """
    if parse_accelerator(task.job.run.accelerator).kind != "nvidia" or task.job.train.precision == "fp32":
        yield
        return
    group_norm, layer_norm = F.group_norm, F.layer_norm

    def widened(norm: Any) -> Any:
        def computed(states: Tensor, *arguments: Any, **named: Any) -> Tensor:
            if not torch.is_autocast_enabled("cpu"):
                return norm(states, *arguments, **named)
            wide = [value.float() if isinstance(value, Tensor) else value for value in arguments]
            named = {name: value.float() if isinstance(value, Tensor) else value for name, value in named.items()}
            return norm(states.float(), *wide, **named)

        return computed

    with patch.object(F, "group_norm", widened(group_norm)), patch.object(F, "layer_norm", widened(layer_norm)):
        yield


# ---- the process -----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sdjob.train_torch.forecast")
    parser.add_argument("task", type=Path, help="the task file of a training job")
    asked = parser.parse_args(arguments)
    try:
        task = read_task(asked.task)
        if not isinstance(task, TrainTask):
            raise UsageError("only training is played ahead.", where=str(asked.task))
        found = forecast(task)
    except SdjobError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(json.dumps(asdict(found)))  # noqa: T201 - what the process is for
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Builds what the torch loop needs: device, models, optimizer, the trainer that the loop drives."""

import json
import platform
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from accelerate import Accelerator, InitProcessGroupKwargs
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from sdjob.core.errors import UsageError
from sdjob.diffusion.family import read_base_model
from sdjob.diffusion.latents import read_latents
from sdjob.diffusion.learning_rate import LearningRate
from sdjob.diffusion.lora_scale import rate_factors, refuse_unused_patterns
from sdjob.diffusion.schedule import read_schedule
from sdjob.loop import LoopPlan, SaveWord, StepMetrics
from sdjob.spec.checkpoint import drawn_every_steps, early_steps
from sdjob.spec.job import measured_every_steps
from sdjob.spec.task import TrainTask
from sdjob.spec.train import TrainSpec
from sdjob.train_torch import compiled
from sdjob.train_torch import state as states
from sdjob.train_torch.attention import use_xformers
from sdjob.train_torch.conditioning import TextEncoders, Tokenizers, no_text_encoders, read_text_encoders
from sdjob.train_torch.ema import build_average
from sdjob.train_torch.encode import vae_dtype
from sdjob.train_torch.loading import model_errors
from sdjob.train_torch.lora import add_lora, load_lora, lora_parameters
from sdjob.train_torch.optimizer import build_optimizer
from sdjob.train_torch.ranks import num_machines, peers_answer
from sdjob.train_torch.sample import SamplePlan, pipeline_of, write_pictures
from sdjob.train_torch.sharding import Shards, laid_as, spread
from sdjob.train_torch.step import MicroBatch, Models, PendingMetrics, StepRunner

COMPUTE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GANG_TIMEOUT = timedelta(hours=2)  # rank 0 validates while the others wait in the next step's reduction


def make_deterministic(task: TrainTask) -> None:
    """CUDA's deterministic kernels have a price, so the job decides (https://docs.pytorch.org/docs/stable/notes/randomness.html)."""
    if task.job.train.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    else:
        torch.backends.cudnn.benchmark = True


def build_accelerator(task: TrainTask) -> Accelerator:
    precision = task.job.train.precision
    with peers_answer():
        return Accelerator(
            cpu=task.device == "cpu",
            mixed_precision="no" if precision == "fp32" else precision,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=GANG_TIMEOUT)],
        )


def leave(accelerator: Accelerator) -> None:
    if torch.distributed.is_initialized():
        with peers_answer():
            accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()


def fingerprint(accelerator: Accelerator) -> dict[str, Any]:
    """What arithmetic depends on beside the job; two attempts that differ here agree to rounding only."""
    on_cuda = accelerator.device.type == "cuda"
    return {
        "backend": "torch",
        "device": torch.cuda.get_device_name(accelerator.device) if on_cuda else platform.machine(),
        "devices": accelerator.num_processes,
        # NCCL adds up along the machines' topology; gloo by ranks alone.
        "hosts": num_machines() if on_cuda else None,
        "threads": torch.get_num_threads(),
        "isa": None if on_cuda else torch.backends.cpu.get_cpu_capability(),
        "versions": {
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "numpy": np.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        },
    }


# ---- models --------------------------------------------------------------------------------------------------------------


def build_models(task: TrainTask, *, accelerator: Accelerator) -> Models:
    """Frozen parts in the compute precision, trainable ones as float32 masters; no encoders where they have run before."""
    train, device = task.job.train, accelerator.device
    unet, spreads = load_unet(task), is_spread(task, accelerator)
    pays = device.type == "cuda" or (train.method == "lora" and train.device_batch == 1)
    if pays and not spreads:  # FSDP knows one layout alone
        lay_out(unet)  # before the adapters: peft's DoRA of convolutions takes views of theirs
    if train.method == "lora":
        add_lora(unet, spec=train.lora, seed=train.seed)
    if train.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    if train.attention == "xformers":
        use_xformers(unet, device=device, dtype=COMPUTE_DTYPES[train.precision])
    if spreads:
        spread(unet, accelerator=accelerator, compute=COMPUTE_DTYPES[train.precision])
    unet.train()
    velocity = read_schedule(task.model, prediction=train.loss.prediction).prediction == "v_prediction"
    vae = load_vae(task, device=device) if task.needs_vae else None
    text = load_text_encoders(task, device=device) if task.needs_text_encoder else no_text_encoders(task.model, train=train)
    return Models(unet.to(device), vae, text, read_latents(task.model), predicts_velocity=velocity)


def is_spread(task: TrainTask, accelerator: Accelerator) -> bool:
    return task.job.train.fsdp and accelerator.num_processes > 1


def load_unet(task: TrainTask) -> UNet2DConditionModel:
    train = task.job.train
    masters = COMPUTE_DTYPES[train.precision] if train.method == "lora" else torch.float32
    with model_errors(task.model):
        return UNet2DConditionModel.from_pretrained(task.model, subfolder="unet", dtype=masters, **file_choice(task))


def load_vae(task: TrainTask, *, device: torch.device) -> AutoencoderKL:
    train, compute = task.job.train, COMPUTE_DTYPES[task.job.train.precision]
    wide = vae_dtype(task.model, family=read_base_model(task.model).family, compute=compute)
    with model_errors(task.model):
        vae = AutoencoderKL.from_pretrained(task.model, subfolder="vae", dtype=wide, **file_choice(task))
    if train.attention == "xformers":
        use_xformers(vae, device=device, dtype=wide)
    lay_out(vae)
    vae.requires_grad_(False).eval().to(device)  # pyright: ignore[reportArgumentType] (diffusers annotates a wrapper)
    return vae


def load_text_encoders(task: TrainTask, *, device: torch.device) -> TextEncoders:
    train, variant = task.job.train, task.job.model.variant
    return read_text_encoders(task.model, train=train, variant=variant, compute=COMPUTE_DTYPES[train.precision]).to(device)


def file_choice(task: TrainTask) -> dict[str, Any]:
    return {"use_safetensors": True, "variant": task.job.model.variant}


def lay_out(model: UNet2DConditionModel | AutoencoderKL) -> None:
    """Channels last, as cuDNN's kernels for tensor cores want them (https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html).
    On a CPU a VAE gains an eighth by it, and a UNet with a LoRA that sees one picture at a time up to a fifteenth, the smaller
    the picture the more. With four at a time it loses a tenth, and as much where the UNet's own weights have gradients."""
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (torch leaves it out of its overloads)


def trainable(task: TrainTask, models: Models) -> dict[str, torch.nn.Parameter]:
    """By name, in the order of names: the order in which gradients are reduced and norms added up."""
    unet, text = models.unet, models.text.parameters()
    if task.job.train.method == "full":
        return dict(sorted({**{f"unet.{name}": p for name, p in unet.named_parameters()}, **text}.items()))
    found = dict(sorted({**lora_parameters(unet), **text}.items()))
    refuse_unused_patterns(found, lora=task.job.train.lora)
    return found


def build_state(task: TrainTask, *, models: Models) -> states.TrainState:
    train = task.job.train
    parameters = trainable(task, models)
    shards = Shards.of(parameters)
    if shards is not None:
        parameters = shards.parameters
    optimizer = build_optimizer(train.optimizer, parameters, factors=rate_factors(parameters, train=train))
    scaler = torch.amp.GradScaler(task.device) if train.precision == "fp16" else None
    return states.TrainState(parameters, optimizer, ema=None, scaler=scaler, shards=shards)


def build_runner(task: TrainTask, *, accelerator: Accelerator, models: Models) -> StepRunner:
    train = task.job.train
    schedule = train.schedule
    return StepRunner(
        accelerator=accelerator,
        models=models,
        state=build_state(task, models=models),
        learning_rate=LearningRate(
            base=train.optimizer.learning_rate,
            schedule=schedule.name,
            total_steps=task.total_steps,
            warmup_steps=schedule.warmup_steps,
            num_cycles=schedule.num_cycles,
            power=schedule.power,
            step_rules=schedule.step_rules,
        ),
        max_grad_norm=train.optimizer.max_grad_norm,
        dropout_seed=train.seed if train.method == "lora" and train.lora.dropout else None,
    )


# ---- the trainer that the loop drives --------------------------------------------------------------------------------------


@dataclass
class TorchTrainer:
    task: TrainTask
    runner: StepRunner
    tokenizers: Tokenizers
    scheduler: SchedulerMixin
    on_work: Callable[[], None] = lambda: None
    """Called after each step, in which something may have been compiled."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture's latents."""
        resolution = self.task.job.data.resolution
        return self.runner.models.latents.shape(width=resolution.width, height=resolution.height)

    def load(self, *, checkpoint: Path | None, init_from: Path | None) -> None:
        runner, train = self.runner, self.task.job.train
        if init_from is not None and checkpoint is None:
            load_start(runner.models.unet, init_from, train=train, adapters=runner.state.parameters)
        if train.ema is not None:
            # Made after the start's weights are in: the average begins at them.
            runner.state.ema = build_average(train.ema, runner.state.parameters.values())
        if checkpoint is not None:
            states.restore(runner.state, checkpoint)

    def step(
        self, batch: list[MicroBatch], *, step: int, stop_wanted: bool, save_word: SaveWord = SaveWord.NOTHING
    ) -> PendingMetrics:
        metrics = self.runner.run(batch, step=step, stop_wanted=stop_wanted, save_word=save_word)
        self.on_work()
        return metrics

    def expect_saves(self) -> None:
        self.runner.state.reserve()

    def snapshot(self, *, step: int, metrics: StepMetrics) -> states.HostSnapshot:
        scalars = {"step": step, "loss": metrics.loss, "grad_norm": metrics.grad_norm}
        return states.snapshot(self.runner.state, scalars=scalars, last=step == self.task.total_steps)

    def validate(self, folder: Path) -> None:
        """Where the weights are spread all ranks draw, as each brings rows that the others need; the pictures are the same."""
        asked, resolution = self.task.job.validation, self.task.job.data.resolution
        assert asked is not None
        plan = SamplePlan(
            prompts=asked.prompts,
            images=asked.images,
            inference_steps=asked.inference_steps,
            guidance_scale=asked.guidance_scale,
            width=resolution.width,
            height=resolution.height,
            seed=self.task.job.train.seed,
        )
        models = self._drawing_models()
        with self.averaged_weights(), self.runner.accelerator.autocast(), self.uncompiled():
            models.train(False)
            pipeline = pipeline_of(models, tokenizers=self.tokenizers, scheduler=self.scheduler)
            write_pictures(pipeline, plan, folder=folder if self.runner.accelerator.is_main_process else None)
            models.train(True)

    def _drawing_models(self) -> Models:
        """Encoders that have run before the training are read again for the while: that takes a second or two of a minute, and
        kept on the host they would take its memory from snapshots all the time."""
        models, device = self.runner.models, self.runner.accelerator.device
        vae = load_vae(self.task, device=device) if models.vae is None else models.vae
        text = models.text if models.text.parts else load_text_encoders(self.task, device=device)
        return replace(models, vae=vae, text=text)

    def uncompiled(self) -> AbstractContextManager[object]:
        """Around what is computed beside the steps."""
        return compiled.uncompiled() if self.task.job.train.compile else nullcontext()

    @contextmanager
    def averaged_weights(self) -> Generator[None]:
        """EMA weights are what is published, so they are what is looked at."""
        state = self.runner.state
        if state.ema is None:
            yield
            return
        parameters = list(state.parameters.values())
        state.ema.store(parameters)
        state.ema.copy_to(parameters)
        try:
            yield
        finally:
            state.ema.restore(parameters)


def load_start(unet: UNet2DConditionModel, path: Path, *, train: TrainSpec, adapters: Mapping[str, torch.nn.Parameter]) -> None:
    """`train.init_from`: a file of LoRA weights, or a UNet's folder."""
    if train.method == "lora":
        load_lora(adapters, path, spec=train.lora, unet_config=unet.config)
        return
    given = UNet2DConditionModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
    try:
        unet.load_state_dict(laid_as(unet, given.state_dict()))
    except RuntimeError as error:
        raise UsageError(
            f"{path} holds a UNet of another architecture than the model's: {error}", where="train.init_from"
        ) from error


def build_trainer(task: TrainTask, *, accelerator: Accelerator, models: Models) -> TorchTrainer:
    runner = build_runner(task, accelerator=accelerator, models=models)
    return TorchTrainer(task, runner, Tokenizers.of(task.model), scheduler_of(task.model))


def scheduler_of(model: Path) -> SchedulerMixin:
    """The sampler that the model's own pipeline names."""
    parts = json.loads((model / "model_index.json").read_text(encoding="utf-8"))
    kind = getattr(diffusers, parts["scheduler"][1])
    return kind.from_pretrained(model, subfolder="scheduler")


def loop_plan(task: TrainTask, accelerator: Accelerator) -> LoopPlan:
    job = task.job
    return LoopPlan(
        start_step=task.start_step,
        total_steps=task.total_steps,
        global_batch=job.train.global_batch,
        save_every_steps=job.checkpoint.every_steps,
        save_every_seconds=job.checkpoint.every_seconds,
        validate_every_steps=drawn_every_steps(job.validation),
        measure_every_steps=measured_every_steps(job),
        scratch=task.scratch,
        num_ranks=accelerator.num_processes,
        is_main=accelerator.is_main_process,
        also_save_every_steps=early_steps(job.publish),
        is_spread=is_spread(task, accelerator),
    )

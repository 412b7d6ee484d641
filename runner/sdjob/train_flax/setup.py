"""Builds what the flax loop needs: models, state, the trainer that the loop drives."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sdjob.core.errors import UsageError
from sdjob.diffusion.latents import read_latents
from sdjob.diffusion.learning_rate import LearningRate
from sdjob.diffusion.lora_scale import rate_factors, refuse_unused_patterns
from sdjob.diffusion.names import UNET
from sdjob.diffusion.schedule import read_schedule
from sdjob.loop import LoopPlan, SaveWord, StepMetrics
from sdjob.spec.checkpoint import drawn_every_steps, early_steps
from sdjob.spec.job import measured_every_steps
from sdjob.spec.task import TrainTask
from sdjob.spec.train import TrainSpec
from sdjob.train_flax import hosts
from sdjob.train_flax import state as states
from sdjob.train_flax.conditioning import TextEncoders, add_text_lora, no_text_encoders, read_text_encoders
from sdjob.train_flax.encode import wide_enough
from sdjob.train_flax.lora import add_lora, load_lora, read_lora
from sdjob.train_flax.mesh import Layout
from sdjob.train_flax.models import names
from sdjob.train_flax.models.folder import Put, read_unet, read_vae, shape_alone
from sdjob.train_flax.models.layers import Compute, LoraParam
from sdjob.train_flax.models.splash import attention_of
from sdjob.train_flax.optimizer import optimizer_of
from sdjob.train_flax.sample import SamplePlan, write_pictures
from sdjob.train_flax.sampler import Sampler
from sdjob.train_flax.step import Frozen, Models, PendingMetrics, Plan, StepBatch, StepRunner, make_plan, with_encoders

COMPUTE_DTYPES: dict[str, Any] = {"fp32": jnp.float32, "bf16": jnp.bfloat16}


# ---- models --------------------------------------------------------------------------------------------------------------


def build_models(task: TrainTask, *, layout: Layout, shapes_alone: bool = False) -> Models:
    """Frozen parts in the compute precision, trainable ones as float32 masters; no encoders where they have run before.

    Of `shapes_alone` nothing but the model's configurations is read: enough to compile for.
    """
    train = task.job.train
    dtype = compute_dtype(train)
    frozen = Compute(dtype=dtype, param_dtype=dtype, attention=attention_of(layout.mesh))
    lora = train.method == "lora"
    trained = replace(frozen, param_dtype=dtype if lora else jnp.float32, remat=bool(train.gradient_checkpointing))
    options: dict[str, Any] = {"variant": task.job.model.variant, "put": None if shapes_alone else layout.put_whole}
    spread = shape_alone if shapes_alone else layout.put_spread
    own = options if lora or shapes_alone else {**options, "put": layout.put_spread}
    unet = read_unet(task.model / "unet", compute=trained, **own)
    if lora:
        add_lora(unet, spec=train.lora, seed=train.seed, put=spread)
    text = no_text_encoders(task.model, train=train)
    if task.needs_text_encoder:
        text = read_text_encoders(task.model, train=train, compute=frozen, put_trained=own["put"], **options)
    if train.text_encoder == "lora":
        add_text_lora(text, train=train, put=spread)
    return Models(
        unet=unet,
        vae=read_vae(task.model / "vae", compute=wide_enough(frozen, task.model), **options) if task.needs_vae else None,
        text=text,
        latents=read_latents(task.model),
        predicts_velocity=read_schedule(task.model, prediction=train.loss.prediction).prediction == "v_prediction",
    )


def read_frozen_encoders(task: TrainTask, *, compute: Compute, put: Put) -> TextEncoders:
    """Of a job that does not train them."""
    return read_text_encoders(
        task.model, train=task.job.train, compute=compute, variant=task.job.model.variant, put=put, put_trained=None
    )


def compute_dtype(train: TrainSpec) -> Any:
    if train.precision not in COMPUTE_DTYPES:
        raise UsageError("the flax backend computes in bf16 or fp32.", where="train.precision", next_step="Set bf16.")
    return COMPUTE_DTYPES[train.precision]


def averages_on_host(train: TrainSpec) -> bool:
    return train.ema is not None and train.ema.offload


@dataclass(frozen=True)
class Program:
    """What of a job is compiled, and what it starts from."""

    plan: Plan
    frozen: Frozen
    parameters: states.Tensors
    ema: bool


def build_program(task: TrainTask, *, models: Models, layout: Layout) -> Program:
    train = task.job.train
    kind: Any = LoraParam if train.method == "lora" else nnx.Param
    own = {f"{UNET}{name}": found for name, found in names.parameters_of(models.unet, kind).items()} | models.text.trained()
    if train.method == "lora":
        refuse_unused_patterns(own, lora=train.lora)
    plan, frozen = make_plan(
        models,
        kind=kind,
        paths={name: path for name, (path, _) in own.items()},
        optimizer=optimizer_of(train.optimizer),
        rates=tuple(sorted(rate_factors(own, train=train).items())),
        max_grad_norm=train.optimizer.max_grad_norm,
        dropout=train.method == "lora" and train.lora.dropout > 0,
        layout=layout,
    )
    parameters = {name: variable.get_value() for name, (_, variable) in own.items()}
    return Program(plan, frozen, parameters, ema=train.ema is not None)


def build_runner(task: TrainTask, *, models: Models, layout: Layout) -> StepRunner:
    train = task.job.train
    program = build_program(task, models=models, layout=layout)
    return StepRunner(
        plan=program.plan,
        frozen=program.frozen,
        state=states.start_state(
            program.parameters,
            ema=program.ema,
            optimizer=program.plan.optimizer,
            paths=dict(program.plan.paths),
            layout=layout,
        ),
        put=layout.put_batch,
        any_host=layout.any_host,
        learning_rate=learning_rate(task),
        ema_decay=train.ema.decay if train.ema else None,
        dropout_seed=train.seed if program.plan.dropout else None,
    )


def learning_rate(task: TrainTask) -> LearningRate:
    train, schedule = task.job.train, task.job.train.schedule
    return LearningRate(
        base=train.optimizer.learning_rate,
        schedule=schedule.name,
        total_steps=task.total_steps,
        warmup_steps=schedule.warmup_steps,
        num_cycles=schedule.num_cycles,
        power=schedule.power,
        step_rules=schedule.step_rules,
    )


def load_start(models: Models, path: Path, *, train: TrainSpec, layout: Layout) -> Models:
    """`train.init_from`: a file of LoRA weights, or a UNet's folder."""
    if train.method == "lora":
        parts = {"unet": models.unet, **models.text.parts}
        load_lora(parts, read_lora(path, models=parts, spec=train.lora), file=path.name, put=layout.put_spread)
        return models
    given = read_unet(path, compute=models.unet.compute, put=layout.put_spread)
    if given.config != models.unet.config:
        raise UsageError(f"{path} holds a UNet of another architecture than the model's", where="train.init_from")
    return replace(models, unet=given)


# ---- the trainer that the loop drives --------------------------------------------------------------------------------------


@dataclass
class FlaxTrainer:
    task: TrainTask
    runner: StepRunner
    latent_shape: tuple[int, int, int]
    """(C, H, W) of one picture's latents."""

    layout: Layout
    on_work: Callable[[], None] = lambda: None
    """Called after whatever may have been compiled."""

    def load(self, checkpoint: Path) -> None:
        paths = dict(self.runner.plan.paths)
        puts = {"put": self.layout.put_spread, "put_average": self.layout.put_average}
        restored = states.restore(self.runner.state, checkpoint, paths=paths, **puts)
        self.runner.state, self.runner.count = restored.state, restored.count

    def step(
        self,
        batch: StepBatch,
        *,
        step: int,
        stop_wanted: bool,
        save_word: SaveWord = SaveWord.NOTHING,  # noqa: ARG002
    ) -> PendingMetrics:
        result = self.runner.run(batch, step=step, stop_wanted=stop_wanted)
        self.on_work()
        return result

    def expect_saves(self) -> None:
        """jax makes the host's memory itself, anew for each."""

    def snapshot(self, *, step: int, metrics: StepMetrics) -> states.HostSnapshot:
        scalars = {"step": step, "loss": metrics.loss, "grad_norm": metrics.grad_norm}
        return states.snapshot(self.runner.state, paths=dict(self.runner.plan.paths), count=self.runner.count, scalars=scalars)

    def validate(self, folder: Path) -> None:
        """EMA weights are what is published, so they are what is looked at."""
        asked, runner = self.task.job.validation, self.runner
        assert asked is not None
        plan = SamplePlan(
            prompts=asked.prompts,
            images=asked.images,
            inference_steps=asked.inference_steps,
            guidance_scale=asked.guidance_scale,
            latent_shape=self.latent_shape,
            seed=self.task.job.train.seed,
        )
        weights = runner.state.parameters if runner.state.averages is None else runner.state.averages
        # The other hosts train on, or wait for this one: what is drawn is drawn on this host's devices alone.
        layout = self.layout.of_this_host()
        weights, frozen = layout.take((weights, runner.frozen))
        drawing, frozen = self._with_encoders(self._drawing_plan(layout), frozen, layout=layout)
        write_pictures(weights, frozen, plan=drawing, asked=plan, model=self.task.model, folder=folder)
        self.on_work()

    def _with_encoders(self, plan: Plan, frozen: Frozen, *, layout: Layout) -> tuple[Plan, Frozen]:
        """Those that have run before the training are read again for the while: that takes a second or two of a minute, and
        kept on the host they would take its memory from snapshots all the time."""
        task, dtype = self.task, compute_dtype(self.task.job.train)
        compute = Compute(dtype=dtype, param_dtype=dtype, attention=attention_of(layout.mesh))
        options: dict[str, Any] = {"variant": task.job.model.variant, "put": layout.put_whole}
        vae = None if task.needs_vae else read_vae(task.model / "vae", compute=wide_enough(compute, task.model), **options)
        text = None if task.needs_text_encoder else read_frozen_encoders(task, compute=compute, put=layout.put_whole)
        return with_encoders(plan, frozen, vae=vae, text=text)

    def _drawing_plan(self, layout: Layout) -> Plan:
        if layout == self.layout:
            return self.runner.plan
        return build_program(self.task, models=build_models(self.task, layout=layout, shapes_alone=True), layout=layout).plan


def build_trainer(task: TrainTask, *, on_work: Callable[[], None] = lambda: None) -> FlaxTrainer:
    """What the weights start from, in order of precedence:

    1. a checkpoint of this run (weights, moments, EMA);
    2. train.init_from (weights alone);
    3. the base model; LoRA adapters as drawn from the seed.
    """
    asked = task.job.validation
    if asked is not None and asked.prompts:  # what cannot be drawn is refused before anything is trained
        Sampler.of(task.model, num_steps=asked.inference_steps)
    layout = Layout.of_all_devices(averages_on_host=averages_on_host(task.job.train))
    models = build_models(task, layout=layout)
    if task.init_from is not None and task.restore_from is None:
        models = load_start(models, task.init_from, train=task.job.train, layout=layout)
    runner = build_runner(task, models=models, layout=layout)
    resolution = task.job.data.resolution
    shape = models.latents.shape(width=resolution.width, height=resolution.height)
    trainer = FlaxTrainer(task, runner, shape, layout, on_work)
    if task.restore_from is not None:
        trainer.load(task.restore_from)
    return trainer


def loop_plan(task: TrainTask) -> LoopPlan:
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
        num_ranks=jax.process_count(),
        is_main=hosts.is_first(),
        also_save_every_steps=early_steps(job.publish),
    )

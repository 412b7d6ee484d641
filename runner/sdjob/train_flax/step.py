"""One optimizer step on flax, compiled whole: micro-batches, clipping, the optimizer, EMA.

The formulas are those of the torch trainer: its optimizers, torch.nn.utils.clip_grad_norm_, diffusers' EMAModel.
Axes: M micro-steps, B pictures of one, H x W positions, C channels, E text encoders, T tokens.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from sdjob.core.errors import UnsoundError
from sdjob.core.streams import stream
from sdjob.diffusion.latents import LatentFacts
from sdjob.diffusion.learning_rate import LearningRate
from sdjob.loop import StepMetrics
from sdjob.train_flax.conditioning import TextEncoders, TextModel, TextTraits, added_conditions, encoded_captions
from sdjob.train_flax.encode import drawn_latents, encode_pictures
from sdjob.train_flax.lora import set_dropout_keys
from sdjob.train_flax.mesh import Layout, peak_memory_mib
from sdjob.train_flax.models.names import Path
from sdjob.train_flax.models.unet import UNet2DConditionModel
from sdjob.train_flax.models.vae import AutoencoderKL, Posterior
from sdjob.train_flax.optimizer import Optimizer, Slots
from sdjob.train_flax.state import Tensors, TrainState, by_slot, of_parameter

Shapes = tuple[tuple[int, ...], ...]
NORM_EPSILON = 1e-6  # clip_grad_norm_ adds it to the norm that it divides by


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StepBatch:
    """All micro-batches of a step."""

    pictures: dict[str, Any]
    """`pixels_MBHWC`; or, encoded before the training, `mean_MBHWC` and `log_variance_MBHWC`."""

    captions: dict[str, Any]
    """`ids_MBET` and `told_MB`; or, encoded before the training, `states_MBTD` and of SDXL `pooled_MBP`."""

    time_ids_MB6: Any
    """What SDXL is told of sizes and crop."""

    timesteps_MB: Any
    signal_MB: Any
    sigma_MB: Any
    loss_weight_MB: Any
    noise_MBHWC: Any
    input_noise_MBHWC: Any
    posterior_MBHWC: Any


@dataclass(frozen=True)
class Models:
    unet: UNet2DConditionModel
    vae: AutoencoderKL | None
    text: TextEncoders
    """Without parts, as the VAE is None, where they have run before the training."""

    latents: LatentFacts
    predicts_velocity: bool


class Frozen(NamedTuple):
    """What the models hold beside the trained parameters: an argument of the program and no constant in it."""

    unet: Any
    vae: Any
    text: tuple[Any, ...]


@dataclass(frozen=True)
class Plan:
    """What the compiled program depends on; equal plans share one compilation."""

    unet: Any
    vae: Any
    text: tuple[Any, ...]
    """The models' graphs, without arrays; of encoders that have run before the training there are none."""

    traits: TextTraits
    paths: tuple[tuple[str, Path], ...]
    """The trained parameters: (name in a checkpoint, path in the model that the name begins with)."""

    kind: type[nnx.Variable[Any]]
    latents: LatentFacts
    predicts_velocity: bool
    optimizer: Optimizer
    rates: tuple[tuple[str, float], ...]
    """What the learning rate is multiplied with, by name."""

    max_grad_norm: float | None
    dropout: bool
    layout: Layout | None = None
    """Where the state lies, before a step and after it."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Knobs:
    """The numbers that change from step to step, computed on the host in float64."""

    learning_rate: Any
    optimizer: dict[str, Any]
    """Its own, as its bias corrections."""

    ema_share: Any
    """Of the new weights in the average."""

    dropout_seeds_M: Any


def make_plan(models: Models, *, kind: type[nnx.Variable[Any]], paths: dict[str, Path], **options: Any) -> tuple[Plan, Frozen]:
    unet, rest = without_trained(models.unet, paths, part="unet")
    plan = Plan(
        unet=unet,
        vae=None,
        text=(),
        traits=models.text.traits,
        paths=tuple(sorted(paths.items())),
        kind=kind,
        latents=models.latents,
        predicts_velocity=models.predicts_velocity,
        **options,
    )
    return with_encoders(plan, Frozen(rest, vae=None, text=()), vae=models.vae, text=models.text)


def with_encoders(plan: Plan, frozen: Frozen, *, vae: AutoencoderKL | None, text: TextEncoders | None) -> tuple[Plan, Frozen]:
    """Those that are given are in the program too."""
    if vae is not None:
        graph, arrays = nnx.split(vae)
        plan, frozen = replace(plan, vae=graph), frozen._replace(vae=arrays)
    if text is not None:
        split = [without_trained(model, dict(plan.paths), part=part) for part, model in text.parts.items()]
        plan = replace(plan, text=tuple(graph for graph, _ in split))
        frozen = frozen._replace(text=tuple(arrays for _, arrays in split))
    return plan, frozen


def without_trained(model: nnx.Module, paths: Mapping[str, Path], *, part: str) -> tuple[Any, Any]:
    """(the model's graph, what it holds beside its trained parameters)"""
    own = {path for name, path in paths.items() if name.startswith(f"{part}.")}
    graph, _, rest = nnx.split(model, lambda path, _: tuple(path) in own, ...)
    return graph, rest


# ---- the program ---------------------------------------------------------------------------------------------------------


def latents_of(frozen: Frozen, micro: StepBatch, *, plan: Plan) -> Array:
    """Of moments that came with the batch, or of what the VAE makes of its pixels."""
    pictures = micro.pictures
    if plan.vae is not None:
        posterior = encode_pictures(nnx.merge(plan.vae, frozen.vae), pictures["pixels_MBHWC"])
    else:
        posterior = Posterior(pictures["mean_MBHWC"], pictures["log_variance_MBHWC"])
    return drawn_latents(posterior, posterior_BHWC=micro.posterior_MBHWC, scaling_factor=plan.latents.scaling_factor)


def states_of(models: Sequence[TextModel], micro: StepBatch, *, plan: Plan) -> dict[str, Array]:
    """What came with the batch, or what the text encoders make of its tokens."""
    captions = {name.replace("_MB", "_B"): values for name, values in micro.captions.items()}
    return encoded_captions(models, captions, traits=plan.traits) if "ids_BET" in captions else captions


def loss_of(parameters: Tensors, frozen: Frozen, micro: StepBatch, seed: Array, *, plan: Plan) -> Array:
    """Weighted mean squared error of a micro-batch, whose fields have lost their M; a float32 scalar."""
    text, unet = trained_text(parameters, frozen, plan=plan), trained_unet(parameters, frozen, plan=plan)
    if plan.dropout:
        set_dropout_keys([unet, *text], jax.random.key(seed))
    latents, told = latents_of(frozen, micro, plan=plan), states_of(text, micro, plan=plan)
    signal, sigma = micro.signal_MB[:, None, None, None], micro.sigma_MB[:, None, None, None]
    noisy = signal * latents + sigma * micro.input_noise_MBHWC
    target = signal * micro.noise_MBHWC - sigma * latents if plan.predicts_velocity else micro.noise_MBHWC
    predicted = unet(noisy, micro.timesteps_MB, told["states_BTD"], added_conditions(told, micro.time_ids_MB6))
    errors_B = jnp.square(predicted.astype(jnp.float32) - target).mean((1, 2, 3))
    return (errors_B * micro.loss_weight_MB).mean()


def trained_unet(parameters: Tensors, frozen: Frozen, *, plan: Plan) -> UNet2DConditionModel:
    return nnx.merge(plan.unet, own_parameters(parameters, part="unet", plan=plan), frozen.unet)


def trained_text(parameters: Tensors, frozen: Frozen, *, plan: Plan) -> list[TextModel]:
    """None of them where they have run before the training."""
    named = zip(plan.traits.parts, plan.text, frozen.text, strict=False)
    return [nnx.merge(graph, own_parameters(parameters, part=part, plan=plan), rest) for part, graph, rest in named]


def own_parameters(parameters: Tensors, *, part: str, plan: Plan) -> Any:
    flat: Any = {path: plan.kind(parameters[name]) for name, path in plan.paths if name.startswith(f"{part}.")}
    return nnx.from_flat_state(flat)


def mean_gradients(parameters: Tensors, frozen: Frozen, batch: StepBatch, seeds_M: Array, *, plan: Plan) -> tuple[Array, Tensors]:
    """(loss, gradients), each the mean over the micro-steps, one after the other."""
    num_micro = len(seeds_M)
    differentiated = jax.value_and_grad(partial(loss_of, plan=plan))
    if num_micro == 1:  # no loop: for CPUs XLA brings the gradients of kernels into the form that is fast outside of loops alone
        return differentiated(parameters, frozen, *jax.tree.map(lambda array: array[0], (batch, seeds_M)))

    def add(total: tuple[Array, Tensors], micro: tuple[StepBatch, Array]) -> tuple[tuple[Array, Tensors], None]:
        found = differentiated(parameters, frozen, *micro)
        return jax.tree.map(lambda sum_, new: sum_ + new / num_micro, total, found), None

    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters))
    return lax.scan(add, nothing, (batch, seeds_M))[0]


def clipped(gradients: Tensors, *, limit: float | None) -> tuple[Array, Tensors]:
    """(norm before, gradients scaled down to at most `limit`)."""
    norm = jnp.sqrt(sum(jnp.square(gradient).sum() for gradient in gradients.values()))
    if limit is None:
        return norm, gradients
    factor = jnp.minimum(1.0, limit / (norm + NORM_EPSILON))
    return norm, {name: gradient * factor for name, gradient in gradients.items()}


def updated(state: TrainState, gradients: Tensors, knobs: Knobs, *, plan: Plan) -> TrainState:
    """The optimizer's step, then the average."""
    parameters: Tensors = {}
    slots: dict[str, Slots] = {}
    factors = dict(plan.rates)
    for name, path in plan.paths:
        own, given = of_parameter(state.moments, name), (state.parameters[name], gradients[name])
        rate = knobs.learning_rate * factors[name] if factors[name] != 1.0 else knobs.learning_rate
        parameters[name], slots[name] = plan.optimizer.updated(*given, own, rate=rate, numbers=knobs.optimizer, path=path)
    averages = state.averages
    if averages is not None:
        averages = {name: mean - knobs.ema_share * (mean - parameters[name]) for name, mean in averages.items()}
    return TrainState(parameters, by_slot(slots), averages)


@partial(jax.jit, static_argnames=("plan",), donate_argnames=("state",))
def advance(state: TrainState, frozen: Frozen, batch: StepBatch, knobs: Knobs, *, plan: Plan) -> tuple[TrainState, Array]:
    """(the state after the step, (loss, gradient norm)). The old state's memory is used again."""
    loss, gradients = mean_gradients(state.parameters, frozen, batch, knobs.dropout_seeds_M, plan=plan)
    norm, gradients = clipped(gradients, limit=plan.max_grad_norm)
    layout = plan.layout
    if layout is None:
        return updated(state, gradients, knobs, plan=plan), jnp.stack([loss, norm])
    after = updated(replace(state, averages=layout.brought(state.averages)), gradients, knobs, plan=plan)
    # Left to itself the compiler may lay some of it elsewhere, and the next step would have to be compiled anew for that.
    held = TrainState(layout.held(after.parameters), layout.held(after.moments), layout.returned(after.averages))
    return held, jnp.stack([loss, norm])


# ---- on the host ---------------------------------------------------------------------------------------------------------


@dataclass
class PendingMetrics:
    """A step's figures, still on the device."""

    figures: Array
    """(loss, gradient norm)"""

    learning_rate: float
    step: int
    stop: Any
    """Whether a process was asked to stop; of several it is on the devices too."""

    @property
    def is_here(self) -> bool:
        return self.figures.is_ready()  # pyright: ignore[reportAttributeAccessIssue] (jax declares it on its arrays alone)

    def read(self) -> StepMetrics:
        loss, norm = (float(figure) for figure in np.asarray(self.figures))
        if not all(map(math.isfinite, (loss, norm))):
            raise UnsoundError(
                f"loss {loss} and gradient norm {norm} at step {self.step + 1}: training has diverged.",
                next_step="Lower train.optimizer.learning_rate, or set max_grad_norm; what is committed stands.",
            )
        metrics = StepMetrics(loss=loss, grad_norm=norm, learning_rate=self.learning_rate, stop=bool(self.stop))
        return replace(metrics, device_memory_mib=peak_memory_mib())


@dataclass
class StepRunner:
    """Holds what one step needs beside its batch."""

    plan: Plan
    frozen: Frozen
    state: TrainState
    learning_rate: LearningRate
    ema_decay: float | None
    dropout_seed: int | None
    """Set where LoRA dropout is on: its keys are drawn from (seed, step, micro-step, rank)."""

    count: int = 0
    """Updates so far, of the optimizer and of the average."""

    put: Callable[[StepBatch], StepBatch] = jax.device_put
    any_host: Callable[[bool], Any] = bool
    programs: dict[Shapes, Any] = field(default_factory=dict[Shapes, Any])
    """Compiled ahead of the loop; what is not among them is compiled at its first step."""

    def run(self, batch: StepBatch, *, step: int, stop_wanted: bool) -> PendingMetrics:
        rate = self.learning_rate.at(step)
        self.count += 1
        knobs = self.knobs(rate, step=step, num_micro=len(batch.timesteps_MB))
        program = self.programs.get(shapes_of(batch), partial(advance, plan=self.plan))
        self.state, figures = program(self.state, self.frozen, self.put(batch), knobs)
        return PendingMetrics(figures, learning_rate=rate, step=step, stop=self.any_host(stop_wanted))

    def knobs(self, rate: float, *, step: int, num_micro: int) -> Knobs:
        seeds = np.zeros(num_micro, np.uint32)
        if self.dropout_seed is not None:
            drawn = [stream(self.dropout_seed, "dropout", step, micro, 0).integers(2**32) for micro in range(num_micro)]
            seeds = np.array(drawn, np.uint32)
        return Knobs(
            learning_rate=np.float32(rate),
            optimizer=self.plan.optimizer.numbers(max(1, self.count)),  # ahead of the first update the shapes alone count
            ema_share=np.float32(1.0 - ema_decay_at(self.count, most=self.ema_decay or 0.0)),
            dropout_seeds_M=seeds,
        )


def ema_decay_at(count: int, *, most: float) -> float:
    """EMAModel.get_decay without its options (https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/training_utils.py)."""
    step = max(0, count - 1)
    return min((1 + step) / (10 + step), most) if step else 0.0


def shapes_of(batch: StepBatch) -> Shapes:
    return tuple(array.shape for array in jax.tree.leaves(batch))


def stacked(micros: list[StepBatch]) -> StepBatch:
    """Batches of one micro-step each, into one."""
    return jax.tree.map(lambda *values: np.stack(values), *micros)

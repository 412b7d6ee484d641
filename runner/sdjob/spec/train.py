"""`train`: the method and all that decides which weights come out."""

from typing import Annotated, Any, Literal

from pydantic import Field

from sdjob.spec.part import Part

Backend = Literal["torch", "flax"]
Method = Literal["lora", "full"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
# https://huggingface.co/docs/diffusers/main/en/api/optimization names them: diffusers.optimization.SchedulerType
ScheduleName = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "piecewise_constant"
]
Beta = Annotated[float, Field(ge=0, lt=1)]


def rank_of(validated: dict[str, Any]) -> float:
    return float(validated["rank"])


def device_batch_of(validated: dict[str, Any]) -> int:
    return validated["device_batch"]


class ProdigySpec(Part):
    """What Prodigy has of its own (arXiv 2306.06101), by the names of prodigyopt."""

    d0: float = Field(default=1e-6, gt=0)
    """The first estimate of the step size."""
    d_coef: float = Field(default=1.0, gt=0)
    """Multiplies the estimate: the usual way to make Prodigy bolder or more careful."""
    growth_rate: float | None = Field(default=None, gt=1)
    """The most that the estimate grows by at a step; null sets no limit."""
    use_bias_correction: bool = False
    """Adam's bias correction."""
    safeguard_warmup: bool = False
    """Leave the learning rate out of the estimate's denominator: for schedules with a warm-up."""


class OptimizerSpec(Part):
    """The optimizer and the clipping of its gradients."""

    name: Literal["adamw", "adamw8bit", "adafactor", "prodigy"] = "adamw"
    """The optimizer. adafactor keeps rows' and columns' means alone of the second moment, and no first (arXiv 1804.04235);
    prodigy, on torch, finds the step size itself: set learning_rate to 1; adamw8bit is bitsandbytes' and needs CUDA."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """The highest learning rate that the schedule reaches."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the first and second moment, each in [0, 1); adafactor has none."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay (arXiv 1711.05101)."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment; adafactor has none."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm; null never clips."""
    prodigy: ProdigySpec = ProdigySpec()
    """What prodigy has of its own."""


class ScheduleSpec(Part):
    """How the learning rate changes over the steps, by the names of diffusers' get_scheduler."""

    name: ScheduleName = "constant"
    """The schedule's name."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps over which the learning rate rises from zero."""
    num_cycles: int = Field(default=1, ge=1)
    """Hard restarts of cosine_with_restarts."""
    power: float = Field(default=1.0, gt=0)
    """Exponent of polynomial."""
    step_rules: str | None = None
    """Multiples of the rate for piecewise_constant, as in "1:10,0.1:20,0.01": 1 up to step 10, 0.1 up to 20, then 0.01."""


class LoraSpec(Part):
    """The low-rank matrices that are trained instead of the weights (arXiv 2106.09685)."""

    rank: int = Field(default=4, ge=1)
    """The rank of the matrices."""
    alpha: float = Field(default_factory=rank_of, gt=0)
    """The update is scaled by alpha / rank; absent: as `rank`."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of a LoRA layer's inputs that are dropped in training."""
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Ends of the names of the UNet's modules that get LoRA layers, feed-forward (ff.net.0.proj, ff.net.2) and convolutions
    (conv1, conv2, conv_shortcut) as well."""
    dora: bool = False
    """Train each output's magnitude beside its direction, which the matrices then change (DoRA, arXiv 2402.09353), on torch."""
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Ranks of their own, by regular expressions for the ends of modules' names, as peft's; the first that matches counts."""
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Alphas of their own, in the same way."""
    learning_rate_pattern: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Learning rates of their own, in the same way, as sd-scripts' network_reg_lrs; they follow the schedule, and 0 freezes."""


class EmaSpec(Part):
    """A running average of the weights: it is what is published, validated and sampled."""

    decay: float = Field(default=0.9999, ge=0, lt=1)
    """The share of the average that is kept at each step, in [0, 1)."""
    offload: bool = False
    """Keep the average in the host's memory instead of the GPU's or TPU's (3.4 GB of a full Stable Diffusion 1.5), for two copies
    over the bus at each step; the result is the same."""


class LossSpec(Part):
    """What is predicted, and how the errors are weighed."""

    prediction: Literal["auto", "epsilon", "v_prediction"] = "auto"
    """What the UNet predicts; auto takes it from the model's own configuration."""
    snr_gamma: float | None = Field(default=None, gt=0)
    """Min-SNR weighting (arXiv 2303.09556), which recommends 5.0; null weighs all timesteps alike."""
    zero_terminal_snr: bool = False
    """Rescale the betas so that the last timestep holds no signal (arXiv 2305.08891), for models of v_prediction alone; full
    results and samples get the rescaled schedule too. Min-SNR gives that last timestep no weight."""
    noise_offset: float = Field(default=0.0, ge=0)
    """Noise that is constant over a channel, added with this weight."""
    input_perturbation: float = Field(default=0.0, ge=0)
    """Noise added to the input but not to the target (arXiv 2301.11706), which recommends 0.1."""


class TrainSpec(Part):
    """The method and all that decides which weights come out."""

    backend: Backend = "torch"
    """The library that trains."""
    method: Method
    """lora trains low-rank matrices; full trains the UNet's weights."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Decides every random draw of the run."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps of the whole run; exactly one of `steps` and `epochs` is given."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the data, counted as ceil(epochs x pictures / global_batch) steps."""
    device_batch: int = Field(default=1, ge=1)
    """Pictures per device per micro-step; gradients are accumulated up to `global_batch`."""
    global_batch: int = Field(default_factory=device_batch_of, ge=1)
    """Pictures per optimizer step, over all devices; absent: devices x device_batch."""
    precision: Precision = "auto"
    """What the UNet computes in; auto: bf16, fp16 where a GPU has no bf16, fp32 on CPU. Weights are kept in fp32."""
    deterministic: Literal["auto", True, False] = "auto"
    """Bit for bit the same at every run; auto: true on CPU and TPU, false on CUDA, where it costs speed."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """The optimizer and the clipping of its gradients."""
    schedule: ScheduleSpec = ScheduleSpec()
    """How the learning rate changes over the steps."""
    lora: LoraSpec = LoraSpec()
    """The LoRA layers of method lora."""
    text_encoder: Literal["frozen", "lora", "full"] = "frozen"
    """Whether the text encoders are trained too, in the way of `method`: lora adds layers of `lora`'s rank to their attention."""
    init_from: str | None = None
    """A place of weights to start from: a LoRA of all the layers that the job trains, or a UNet."""
    ema: EmaSpec | None = None
    """A running average of the weights; null keeps none."""
    fsdp: bool = False
    """Spread weights, gradients, moments and EMA over the GPUs of a machine, for method full on torch with adamw: each device
    holds its share, and all of one layer while it is computed. flax always does so."""
    gradient_checkpointing: bool = False
    """Compute activations a second time in the backward pass: less memory, more time."""
    attention: Literal["sdpa", "xformers"] = "sdpa"
    """The attention kernel; xformers is for torch on CUDA."""
    compile: bool = False
    """Have torch compile the UNet's blocks (torch.compile): the first step of each size of picture waits some minutes for the
    compiler, once a run and kind of machine; later ones may be faster. Needs a C++ compiler. flax always compiles."""
    cache: Literal["auto", "always", "never"] = "auto"
    """Whether the frozen encoders run once before training instead of at every step; auto: where each picture has one crop."""
    loss: LossSpec = LossSpec()
    """What is predicted, and how the errors are weighed."""

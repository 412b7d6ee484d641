"""Every flag of the three scripts: where it is, what it becomes, or why it has no equal. The one table of this package.

Flags, types and defaults are those of `parse_args` in
https://github.com/huggingface/diffusers/blob/58eb52c0803ea9af3abec60841c2a093bdf1f951/examples/text_to_image/train_text_to_image.py
and of train_text_to_image_lora.py and train_text_to_image_flax.py beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Script = Literal["full", "lora", "flax"]
Kind = Literal["text", "int", "float", "switch", "texts"]
Value = str | int | float | bool | tuple[str, ...] | None

FILES: Mapping[Script, str] = {
    "full": "train_text_to_image.py",
    "lora": "train_text_to_image_lora.py",
    "flax": "train_text_to_image_flax.py",
}
SCRIPTS: tuple[Script, ...] = ("full", "lora", "flax")
TORCH: tuple[Script, ...] = ("full", "lora")
FULL: tuple[Script, ...] = ("full",)
LORA: tuple[Script, ...] = ("lora",)
FLAX: tuple[Script, ...] = ("flax",)
# https://github.com/pytorch/vision/blob/main/torchvision/transforms/functional.py (InterpolationMode)
INTERPOLATIONS = ("nearest", "nearest_exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True)
class Flag:
    """One flag, the same in all the scripts that have it but for its default."""

    name: str
    kind: Kind
    scripts: tuple[Script, ...] = SCRIPTS
    default: Value = None
    """None: absent."""
    becomes: str = ""
    """The fields that it decides, and how, in Markdown; empty where it has no equal."""
    because: str = ""
    """Why it has no equal; beside `becomes`: what else is to be known."""
    flax_because: str = ""
    """Why the flax script's flag of this name has no equal, where that script reads it and makes nothing of it."""
    choices: tuple[str, ...] = ()
    done_anyway: Value = None
    """Of a flag without an equal: the value that every job has anyway."""
    defaults: Mapping[Script, Value] = field(default_factory=dict[Script, Value])
    """Where a script's own differs from `default`."""

    def default_of(self, script: Script) -> Value:
        return False if self.kind == "switch" else self.defaults.get(script, self.default)

    def why_none(self, script: Script) -> str:
        """Why this script's flag has no equal; empty where it has one."""
        return self.flax_because if script == "flax" and self.flax_because else "" if self.becomes else self.because


MODEL = (
    Flag(
        "pretrained_model_name_or_path",
        "text",
        becomes="`model.source`: `hf://owner/name` for a name on the Hub, a folder as it is",
    ),
    Flag("revision", "text", becomes="`model.revision`", because="a folder has none"),
    Flag(
        "variant",
        "text",
        becomes="`model.variant`",
        because="which then counts for all parts: the full script reads the UNet, the LoRA script the text encoder, without it",
        flax_because="the script never uses it",
    ),
    Flag("non_ema_revision", "text", FULL, becomes="`train.init_from`: the UNet of that revision"),
    Flag("from_pt", "switch", FLAX, because="safetensors are always read, whichever library trains"),
)
DATA = (
    Flag("dataset_name", "text", becomes="`data.source`: `hf://owner/name` for a name on the Hub, a folder as it is"),
    Flag("dataset_config_name", "text", becomes="`data.config`"),
    Flag("train_data_dir", "text", becomes="`data.source`", because="beside a `--dataset_name` on the Hub it has no equal"),
    Flag("image_column", "text", default="image", becomes="`data.image_column`"),
    Flag("caption_column", "text", default="text", becomes="`data.caption_column`"),
    Flag(
        "max_train_samples",
        "int",
        becomes="`data.max_samples`",
        because="the first ones in the data set's order, where the scripts shuffle before they take so many",
    ),
    Flag("resolution", "int", default=512, becomes="`data.resolution`", because="a multiple of 8"),
    Flag("center_crop", "switch", becomes="`data.crop`: `center` with it, `random` without"),
    Flag("random_flip", "switch", becomes="`data.flip`"),
    Flag(
        "image_interpolation_mode",
        "text",
        TORCH,
        default="lanczos",
        choices=INTERPOLATIONS,
        done_anyway="lanczos",
        because="pictures are always resized by Lanczos, which is the scripts' default",
    ),
    Flag("cache_dir", "text", because="downloads go to run.scratch, else SDJOB_SCRATCH, else a folder under TMPDIR"),
    Flag("dataloader_num_workers", "int", TORCH, default=0, becomes="`run.workers`, if given; the result does not depend on it"),
)
TRAINING = (
    Flag("seed", "int", defaults={"flax": 0}, becomes="`train.seed`; absent: `0`, where the torch scripts draw at random"),
    Flag("max_train_steps", "int", becomes="`train.steps`"),
    Flag(
        "num_train_epochs",
        "int",
        default=100,
        becomes="`train.epochs`; `train.steps` where the number of pictures is known",
        because="`--max_train_steps` goes before it",
    ),
    Flag("train_batch_size", "int", default=16, becomes="`train.device_batch`; x accumulation x devices: `train.global_batch`"),
    Flag("gradient_accumulation_steps", "int", TORCH, default=1, becomes="`train.global_batch`: device batch x this x devices"),
    Flag("gradient_checkpointing", "switch", TORCH, becomes="`train.gradient_checkpointing`"),
    Flag(
        "mixed_precision",
        "text",
        default=None,
        defaults={"flax": "no"},
        choices=("no", "fp16", "bf16"),
        becomes="`train.precision`: `no` is `fp32`; flax's `fp16` becomes `bf16`",
        because="absent: what `accelerate launch --mixed_precision` says, else `fp32`",
    ),
    Flag("allow_tf32", "switch", TORCH, because="float32 products stay float32; train.precision: bf16 is faster still"),
    Flag("enable_xformers_memory_efficient_attention", "switch", TORCH, becomes="`train.attention: xformers`"),
    Flag("use_ema", "switch", FULL, becomes="`train.ema: {decay: 0.9999}`, the script's own decay"),
    Flag("offload_ema", "switch", FULL, becomes="`train.ema.offload`, with `--use_ema`"),
    Flag("foreach_ema", "switch", FULL, because="it changes speed alone"),
    Flag("rank", "int", LORA, default=4, becomes="`train.lora.rank`; `alpha` is the rank, as in the script"),
    Flag("prediction_type", "text", TORCH, choices=("epsilon", "v_prediction"), becomes="`train.loss.prediction`"),
    Flag("snr_gamma", "float", TORCH, becomes="`train.loss.snr_gamma`"),
    Flag("noise_offset", "float", TORCH, default=0.0, becomes="`train.loss.noise_offset`"),
    Flag("input_perturbation", "float", FULL, default=0.0, becomes="`train.loss.input_perturbation`"),
    Flag("dream_training", "switch", FULL, because="DREAM (arXiv 2312.00210) is not offered: the job trains without it"),
    Flag("dream_detail_preservation", "float", FULL, default=1.0, because="it belongs to --dream_training"),
    Flag("local_rank", "int", default=-1, because="`sdjob run` starts and numbers its processes itself"),
)
OPTIMIZER = (
    Flag("learning_rate", "float", default=1e-4, becomes="`train.optimizer.learning_rate`"),
    Flag(
        "scale_lr",
        "switch",
        becomes="`train.optimizer.learning_rate`, multiplied as the script does: by batch x accumulation x devices",
    ),
    Flag(
        "lr_scheduler",
        "text",
        default="constant",
        becomes="`train.schedule.name`",
        because="piecewise_constant fails in the scripts, which have no flag for its rules",
        flax_because="the script never uses it: its rate is constant",
    ),
    Flag(
        "lr_warmup_steps",
        "int",
        TORCH,
        default=500,
        becomes="`train.schedule.warmup_steps`, in optimizer steps on any number of devices; `constant` has no warm-up",
    ),
    Flag("use_8bit_adam", "switch", TORCH, becomes="`train.optimizer.name: adamw8bit`"),
    Flag("adam_beta1", "float", default=0.9, becomes="`train.optimizer.betas`, the first"),
    Flag("adam_beta2", "float", default=0.999, becomes="`train.optimizer.betas`, the second"),
    Flag("adam_weight_decay", "float", default=1e-2, becomes="`train.optimizer.weight_decay`"),
    Flag("adam_epsilon", "float", default=1e-8, becomes="`train.optimizer.epsilon`"),
    Flag(
        "max_grad_norm",
        "float",
        default=1.0,
        becomes="`train.optimizer.max_grad_norm`",
        because="the LoRA script clips nothing: its list of parameters is used up by then",
    ),
)
VALIDATION = (
    Flag("validation_prompts", "texts", FULL, becomes="`validation.prompts`, one picture each in 20 inference steps"),
    Flag("validation_prompt", "text", LORA, becomes="`validation.prompts`"),
    Flag("num_validation_images", "int", LORA, default=4, becomes="`validation.images`"),
    Flag(
        "validation_epochs",
        "int",
        TORCH,
        default=5,
        defaults={"lora": 1},
        becomes="`validation.every_steps`: epochs x steps of an epoch where the number of pictures is known",
        because="else as often as checkpoints",
    ),
)
OUTPUT = (
    Flag(
        "output_dir",
        "text",
        default="sd-model-finetuned",
        defaults={"lora": "sd-model-finetuned-lora"},
        becomes="`publish[].to`, and `name` after it; checkpoints go to `checkpoint.to: runs/NAME`",
    ),
    Flag("checkpointing_steps", "int", TORCH, default=500, becomes="`checkpoint.every_steps`"),
    Flag("checkpoints_total_limit", "int", TORCH, becomes="`checkpoint.keep`; absent: all are kept, by `checkpoint.keep_every`"),
    Flag(
        "resume_from_checkpoint",
        "text",
        TORCH,
        because="the same `sdjob run` goes on by itself; diffusers' own checkpoints are not read",
    ),
    Flag("push_to_hub", "switch", becomes="`publish[]`: `hf://` with `private: false`, as the scripts make repositories"),
    Flag(
        "hub_model_id",
        "text",
        becomes="`publish[].to`: `hf://owner/name`",
        because="the owner must be named, and it takes --push_to_hub",
    ),
    Flag("hub_token", "text", because="a job file holds no secrets, and it was not copied: set HF_TOKEN in the environment"),
    Flag(
        "report_to",
        "text",
        default="tensorboard",
        becomes="`track`: `tensorboard` (the scripts' default), `wandb`, or `all` for both",
        because="other trackers have no equal",
        flax_because="the script never uses it: it tracks nothing",
    ),
    Flag(
        "logging_dir", "text", default="logs", because="trackers' files lie with the run", flax_because="the script never uses it"
    ),
    Flag(
        "tracker_project_name",
        "text",
        FULL,
        default="text2image-fine-tune",
        because="set WANDB_PROJECT in the environment; TensorBoard has no projects",
    ),
)
FLAGS: tuple[Flag, ...] = (*MODEL, *DATA, *TRAINING, *OPTIMIZER, *VALIDATION, *OUTPUT)


def flags_of(script: Script) -> dict[str, Flag]:
    return {flag.name: flag for flag in FLAGS if script in flag.scripts}

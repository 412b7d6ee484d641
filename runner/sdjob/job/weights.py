"""From a checkpoint folder to the weights that are published, each in the layout of its ecosystem."""

from pathlib import Path
from typing import Literal

from sdjob.core.errors import SdjobError, UsageError
from sdjob.diffusion.family import read_base_model
from sdjob.diffusion.kohya import diffusers_metadata, kohya_metadata, kohya_tensors
from sdjob.diffusion.names import EMA, without_prefix
from sdjob.diffusion.parts import has_tensors, stored_tensors
from sdjob.diffusion.tensor_file import StoredTensor, write_tensors
from sdjob.job.pipeline import write_pipeline
from sdjob.spec.job import JobSpec

Weights = Literal["ema", "raw"]
Format = Literal["diffusers", "kohya", "both"]

DIFFUSERS_LORA = "pytorch_lora_weights.safetensors"


def build_published(
    checkpoint: Path,
    *,
    job: JobSpec,
    model_dir: Path | None,
    out: Path,
    weights: Weights = "ema",
    format: Format = "both",  # noqa: A002 - the command line's own word
) -> list[str]:
    """Writes the weights of a checkpoint into `out` and returns the files' names, relative to it.

    "ema" means the moving averages where the run keeps them, and the weights themselves where it does not.
    `model_dir` is the base model as a diffusers pipeline folder; a LoRA can do without: its kohya file then does not say
    for which kind of model it is.
    """
    out.mkdir(parents=True, exist_ok=True)
    trained = trained_tensors(checkpoint, weights=weights)
    if job.train.method == "lora":
        return write_lora(trained, job=job, model_dir=model_dir, out=out, format=format)
    if format == "kohya":
        raise UsageError("only a LoRA has kohya's form; this run trained whole models.", next_step="Take the format diffusers.")
    if model_dir is None:
        raise SdjobError("a whole pipeline cannot be built without its base model")
    return write_pipeline(trained, model_dir=model_dir, variant=job.model.variant, out=out)


def trained_tensors(checkpoint: Path, *, weights: Weights) -> dict[str, StoredTensor]:
    """The checkpoint's trained tensors under their own names (`unet....`)."""
    if weights == "ema" and has_tensors(checkpoint, "ema"):
        return without_prefix(stored_tensors(checkpoint, "ema"), prefix=EMA)
    return stored_tensors(checkpoint, "weights")


def without_kohya(format: Format) -> Format:  # noqa: A002
    """What programs that read kohya's form make of DoRA's magnitudes is not what peft trains: they take the norms of inputs, or
    of the weights without the LoRA (https://github.com/KohakuBlueleaf/LyCORIS/issues/216,
    https://github.com/Comfy-Org/ComfyUI/pull/15458)."""
    if format == "kohya":
        raise UsageError(
            "of a DoRA kohya's form would be drawn otherwise than it was trained.", next_step="Take the format diffusers."
        )
    return "diffusers"


def write_lora(
    trained: dict[str, StoredTensor],
    *,
    job: JobSpec,
    model_dir: Path | None,
    out: Path,
    format: Format,  # noqa: A002
) -> list[str]:
    lora = job.train.lora
    wanted = without_kohya(format) if lora.dora else format
    written: list[str] = []
    if wanted in ("diffusers", "both"):
        write_tensors(out / DIFFUSERS_LORA, tensors=trained, metadata=diffusers_metadata(trained, lora=lora))
        written.append(DIFFUSERS_LORA)
    if wanted in ("kohya", "both"):
        size = (job.data.resolution.width, job.data.resolution.height)
        metadata = kohya_metadata(trained, lora=lora, base=read_base_model(model_dir) if model_dir else None, resolution=size)
        name = kohya_file_name(job)
        write_tensors(out / name, tensors=kohya_tensors(trained, lora=lora), metadata=metadata)
        written.append(name)
    return sorted(written)


def kohya_file_name(job: JobSpec) -> str:
    return f"{job.name}.kohya.safetensors"

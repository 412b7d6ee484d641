"""Pictures from the present weights, by diffusers' own pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image
from torch import Tensor

from sdjob.core.channel import Channel
from sdjob.diffusion.draws import initial_latents
from sdjob.diffusion.family import read_base_model
from sdjob.diffusion.pictures import picture_name
from sdjob.diffusion.text_encoders import TOKENIZERS
from sdjob.spec.task import SampleTask
from sdjob.train_torch.conditioning import Tokenizers
from sdjob.train_torch.encode import in_own_precision, vae_dtype
from sdjob.train_torch.loading import model_errors
from sdjob.train_torch.step import Models

UNCHECKED: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}
UNMARKED: dict[str, Any] = {"add_watermarker": False}

Pipeline = StableDiffusionPipeline | StableDiffusionXLPipeline


@dataclass(frozen=True)
class SamplePlan:
    prompts: Sequence[str]
    images: int
    """Pictures of each prompt."""

    inference_steps: int
    guidance_scale: float
    width: int | None
    """Pixels; None: what the model was made for."""

    height: int | None
    seed: int


def pipeline_of(models: Models, *, tokenizers: Tokenizers, scheduler: SchedulerMixin) -> Pipeline:
    text = models.text
    parts: dict[str, Any] = {"vae": models.vae, "unet": models.unet, "scheduler": scheduler, "feature_extractor": None}
    parts |= text.parts
    parts |= {TOKENIZERS[part]: tokenizer for part, tokenizer in zip(text.parts, tokenizers.parts, strict=True)}
    if text.family == "sdxl":
        return StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=text.zeroes_empty, **UNMARKED)
    return StableDiffusionPipeline(**parts, **UNCHECKED)


def read_pipeline(model: Path, *, dtype: torch.dtype) -> Pipeline:
    """A pipeline's folder; float16 where its VAE can be used in it."""
    family = read_base_model(model).family
    with model_errors(model):
        if family != "sdxl":
            return StableDiffusionPipeline.from_pretrained(model, dtype=dtype, use_safetensors=True, **UNCHECKED)
        dtypes = {"vae": vae_dtype(model, family=family, compute=dtype), "default": dtype}
        return StableDiffusionXLPipeline.from_pretrained(model, dtype=dtypes, use_safetensors=True, **UNMARKED)


def starting_latents(pipeline: Pipeline, plan: SamplePlan, *, prompt: int) -> Tensor:
    """(images, C, H / f, W / f): a pure function of (seed, prompt's number, picture's number)."""
    factor, own = pipeline.vae_scale_factor, pipeline.unet.config["sample_size"]
    height, width = (side // factor if side else own for side in (plan.height, plan.width))
    shape = (pipeline.unet.config["in_channels"], height, width)
    drawn = [initial_latents(shape, seed=plan.seed, prompt=prompt, image=i) for i in range(plan.images)]
    return torch.stack([torch.from_numpy(latents) for latents in drawn]).to(pipeline.device, pipeline.unet.dtype)


@torch.no_grad()
def write_pictures(
    pipeline: Pipeline, plan: SamplePlan, *, folder: Path | None, on_prompt: Callable[[int], None] | None = None
) -> None:
    """Without a folder they are drawn all the same, and not decoded."""
    pipeline.set_progress_bar_config(disable=True)
    call: Any = pipeline  # its declared return type is a union over return_dict
    for number, prompt in enumerate(plan.prompts):
        drawn = call(
            prompt,
            num_images_per_prompt=plan.images,
            num_inference_steps=plan.inference_steps,
            guidance_scale=plan.guidance_scale,
            width=plan.width,
            height=plan.height,
            latents=starting_latents(pipeline, plan, prompt=number),
            generator=torch.Generator("cpu").manual_seed(plan.seed),  # for schedulers that draw noise on their way
            output_type="latent",
        )
        if folder is not None:
            for image, latents_1CHW in enumerate(drawn.images.split(1)):  # at 1024 px a VAE takes 3 GB for each
                decoded(pipeline, latents_1CHW).save(folder / picture_name(prompt=number, image=image))
        if on_prompt is not None:
            on_prompt(number + 1)


def decoded(pipeline: Pipeline, latents_1CHW: Tensor) -> Image.Image:
    """In the VAE's own precision, whatever the pipeline was called in."""
    vae, processor = pipeline.vae, pipeline.image_processor
    with in_own_precision(vae):
        pixels = vae.decode(latents_1CHW.to(vae.dtype) / vae.config["scaling_factor"], return_dict=False)[0]
    pictures: Any = processor.postprocess(pixels.float(), output_type="pil", do_denormalize=[True])
    return pictures[0]


def run_sample_task(task: SampleTask, *, channel: Channel) -> None:
    """`sdjob sample`: a pipeline folder, with LoRA weights on top where there are some."""
    dtype = torch.float16 if task.device == "cuda" else torch.float32
    pipeline = read_pipeline(task.model, dtype=dtype)
    if task.lora is not None:
        with model_errors(task.lora):
            pipeline.load_lora_weights(str(task.lora), weight_name="pytorch_lora_weights.safetensors", use_safetensors=True)
    plan = SamplePlan(
        prompts=task.prompts,
        images=task.images,
        inference_steps=task.inference_steps,
        guidance_scale=task.guidance_scale,
        width=task.width,
        height=task.height,
        seed=task.seed,
    )

    def on_prompt(done: int) -> None:
        channel.send({"event": "picture", "done": done, "of": len(task.prompts)})

    write_pictures(pipeline.to(task.device), plan, folder=task.out, on_prompt=on_prompt)
    channel.send({"event": "finished"})

"""What a family does with its text encoders: how many there are, what of them the UNet sees, which weights that leaves out."""

from pathlib import Path

from sdjob.diffusion.family import Family, read_config

# The folders of a family's text encoders, in the order in which the UNet gets their features side by side.
TEXT_PARTS: dict[Family, tuple[str, ...]] = {
    "sd1": ("text_encoder",),
    "sd2": ("text_encoder",),
    "sdxl": ("text_encoder", "text_encoder_2"),
}
TOKENIZERS: dict[str, str] = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
# The linear maps of CLIP's attention, to which https://github.com/huggingface/diffusers/tree/main/examples add LoRA layers.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
TEXT_MODEL = "text_model."


def spelled(name: str) -> str:
    """A parameter's or module's name as files have it: transformers 5 has no `text_model` around a CLIPTextModel in memory."""
    return name if name.startswith((TEXT_MODEL, "text_projection")) else TEXT_MODEL + name


def checkpoint_name(part: str, name: str) -> str:
    return f"{part}.{name if part == 'unet' else spelled(name)}"


def reaches_unet(name: str, *, part: str, family: Family, num_layers: int) -> bool:
    """Whether what the UNet sees depends on it; `name` as files have it.

    SDXL takes its first encoder's states before the last layer: that layer, and the norm behind it, never get a gradient.
    """
    behind = (f"{TEXT_MODEL}encoder.layers.{num_layers - 1}.", f"{TEXT_MODEL}final_layer_norm.")
    return not (family == "sdxl" and part == "text_encoder" and name.startswith(behind))


def zeroes_empty_captions(model_dir: Path, *, family: Family) -> bool:
    """Whether the model was made to see zeros in place of an empty caption's states.

    SDXL's pipeline guides away from zeros where its index says so, and without a word of it
    (https://huggingface.co/docs/diffusers/v0.42.0/en/api/pipelines/stable_diffusion/stable_diffusion_xl); the base was trained so
    (https://github.com/Stability-AI/generative-models, ucg_rate in sgm/modules/encoders/modules.py). A dropped caption is to
    teach what guidance will ask for.
    """
    return family == "sdxl" and bool(read_config(model_dir / "model_index.json").get("force_zeros_for_empty_prompt", True))

"""A fully trained model as a diffusers pipeline folder: the base model's files, with what was trained in place of its own."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdjob.core.errors import MissingError
from sdjob.diffusion.family import read_config
from sdjob.diffusion.names import by_part
from sdjob.diffusion.tensor_file import StoredTensor, read_tensors, write_tensors
from sdjob.diffusion.text_encoders import spelled

UNET_WEIGHTS = "diffusion_pytorch_model.safetensors"
TEXT_WEIGHTS = "model.safetensors"
# Configurations and tokenizers; weights come only as safetensors, never as .bin, .ckpt or .msgpack.
TEXT_SUFFIXES = (".json", ".txt", ".model")
# Parts that StableDiffusionPipeline does without, so that a base whose folder lacks them is no less a model.
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
# Names of variants and shards: https://huggingface.co/docs/diffusers/using-diffusers/loading#checkpoint-variants
SHARD = r"(-\d{5}-of-\d{5})?"


def write_pipeline(trained: Mapping[str, StoredTensor], *, model_dir: Path, variant: str | None, out: Path) -> list[str]:
    """Writes the folder that `StableDiffusionPipeline.from_pretrained` loads without a variant; returns its files' names."""
    index, parts = read_config(model_dir / "model_index.json"), by_part(trained)
    for component in components(index):
        source = model_dir / component
        if source.is_dir():
            (out / component).mkdir()
            copy_texts(source, into=out / component)
            if component in parts:
                write_trained(parts[component], component=component, base=source, variant=variant, into=out / component)
            else:
                copy_weights(source, into=out / component, variant=variant)
        elif component in OPTIONAL:
            index |= {component: [None, None]}
            index |= {"requires_safety_checker": False} if component == "safety_checker" else {}
        else:
            raise MissingError(f"the base model's index names {component}, but its folder has none.", where=str(model_dir))
    write_json(out / "model_index.json", content=without_origin(index))
    copy_licence(model_dir, into=out)
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def write_trained(trained: Mapping[str, StoredTensor], *, component: str, base: Path, variant: str | None, into: Path) -> None:
    """Of the UNet everything is trained; what of a text encoder never gets a gradient is the base's own."""
    if component == "unet":
        write_tensors(into / UNET_WEIGHTS, tensors=trained, metadata={"format": "pt"})
        return
    files = [path for path, _ in chosen_files(base, variant=variant) if path.suffix == ".safetensors"]
    own = {spelled(name): tensor for path in files for name, tensor in read_tensors(path).items()}
    write_tensors(into / TEXT_WEIGHTS, tensors={**own, **trained}, metadata={"format": "pt"})


def components(index: Mapping[str, Any]) -> list[str]:
    """The pipeline's parts that are not null: model_index.json gives each as [library, class]."""
    return [name for name, value in index.items() if isinstance(value, list) and value[0] is not None]


def copy_texts(source: Path, *, into: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.suffix not in TEXT_SUFFIXES or ".index." in path.name or path.name.startswith("flax_"):
            continue
        if path.name.endswith("config.json"):
            write_json(into / path.name, content=in_single_precision(without_origin(read_config(path))))
        else:
            shutil.copyfile(path, into / path.name)


def without_origin(config: dict[str, Any]) -> dict[str, Any]:
    """save_pretrained writes down from which folder a part had been loaded: somebody's path, of no use to others."""
    return {key: value for key, value in config.items() if key not in ("_name_or_path", "name_or_path")}


def in_single_precision(config: dict[str, Any]) -> dict[str, Any]:
    """transformers loads a part in the precision that its configuration or file names, diffusers in float32: beside the
    float32 UNet a text encoder that is stored in half precision would not fit. Both old and new versions read torch_dtype."""
    if "model_type" not in config:  # not transformers'
        return config
    return {**{key: value for key, value in config.items() if key != "dtype"}, "torch_dtype": "float32"}


def copy_weights(source: Path, *, into: Path, variant: str | None) -> None:
    """Copies the variant's safetensors, or the plain ones of a part without that variant (as diffusers does), by plain names."""
    chosen = chosen_files(source, variant=variant)
    weights_exist = any(path.suffix in (".bin", ".safetensors") for path in source.iterdir())
    if weights_exist and not any(path.suffix == ".safetensors" for path, _ in chosen):
        kind = f"safetensors of the variant {variant}" if variant else "safetensors without a variant"
        raise MissingError(f"the base model's {source.name} holds no {kind}.", where=str(source))
    for path, name in chosen:
        if path.suffix == ".json" and variant:
            index = read_config(path)
            index["weight_map"] = {key: file.replace(f".{variant}", "", 1) for key, file in index["weight_map"].items()}
            write_json(into / name, content=index)
        else:
            shutil.copyfile(path, into / name)


def chosen_files(source: Path, *, variant: str | None) -> list[tuple[Path, str]]:
    return list(variant_files(source, variant=variant)) or list(variant_files(source, variant=None))


def variant_files(source: Path, *, variant: str | None) -> Iterator[tuple[Path, str]]:
    """(file, its name without the variant) of one variant's weights and index of shards."""
    mark = re.escape(f".{variant}") if variant else ""
    forms = rf"\w+{mark}{SHARD}\.safetensors", rf"\w+{SHARD}{mark}\.safetensors", rf"\w+\.safetensors\.index{mark}\.json"
    for path in sorted(source.iterdir()):
        if any(re.fullmatch(form, path.name) for form in forms):
            yield path, path.name.replace(f".{variant}", "", 1) if variant else path.name


def copy_licence(model_dir: Path, *, into: Path) -> None:
    """Licences of the OpenRAIL kind ask that a derivative comes with a copy of them."""
    for path in sorted(model_dir.glob("LICENSE*")):
        if path.is_file():
            shutil.copyfile(path, into / path.name)


def write_json(path: Path, *, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""Brings what a job names to this machine and looks at it: the base model's files, the pictures and their index."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sdjob.core.errors import MissingError, UsageError
from sdjob.core.log import Log
from sdjob.data.index import Index, check_bad_share, scan
from sdjob.data.records import list_records
from sdjob.diffusion.family import read_config
from sdjob.job.weights import DIFFUSERS_LORA
from sdjob.spec.job import JobSpec
from sdjob.spec.places import parse_place
from sdjob.store.base import ObjectMissingError, ObjectStore

INDEX_KEY = "data/index.jsonl"
MODEL_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
WEIGHT_PARTS = ("unet", "vae", "text_encoder")
PLAIN_SUFFIXES = {".json", ".txt", ".model"}


@dataclass(frozen=True)
class StagedModel:
    folder: Path
    hashes: dict[str, str]
    """sha256 of every file that training reads, by its path in the folder."""


def local_folder(text: str, *, field: str) -> Path:
    """The folder of a place on this machine."""
    path = parse_place(text, base=Path.cwd()).path
    if not path.exists():
        raise MissingError(f"{text} does not exist", where=field, next_step="Check the spelling; a relative path starts here.")
    return path


def stage_model(job: JobSpec, *, check_stop: Callable[[], None]) -> StagedModel:
    """A folder on this machine is used where it stands."""
    folder = local_folder(job.model.source, field="model.source")
    files = sorted(_used_files(folder, variant=job.model.variant))
    _refuse_unknown_models(folder)
    hashes: dict[str, str] = {}
    for path in files:
        check_stop()
        hashes[path.relative_to(folder).as_posix()] = file_sha256(path)
    return StagedModel(folder=folder, hashes=hashes)


def stage_init_from(job: JobSpec) -> tuple[Path | None, dict[str, str]]:
    """What the trainer starts from (a LoRA's file, or a UNet's folder) and the hashes of its weights."""
    if job.train.init_from is None:
        return None, {}
    path = local_folder(job.train.init_from, field="train.init_from")
    if job.train.method == "lora":
        file = _lora_file(path)
        return file, {"init_from": file_sha256(file)}
    folder = path / "unet" if (path / "unet").is_dir() else path
    if not (folder / "config.json").is_file():
        raise MissingError(
            f"{path} is neither a pipeline's folder nor a UNet's (there is no {folder / 'config.json'})", where="train.init_from"
        )
    files = sorted(_weights(folder, ending=".safetensors", field="train.init_from"))
    return folder, {f"init_from/{f.name}": file_sha256(f) for f in files}


def _lora_file(path: Path) -> Path:
    """The file itself, or the one in a folder: diffusers' own name before a file that stands alone."""
    if path.is_file():
        return path
    if (path / DIFFUSERS_LORA).is_file():
        return path / DIFFUSERS_LORA
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise MissingError(f"{path} holds no safetensors file", where="train.init_from")
    if len(files) > 1:
        names = ", ".join(f.name for f in files)
        raise UsageError(f"{path} holds several LoRA files ({names})", where="train.init_from", next_step="Name one of them.")
    return files[0]


def _used_files(folder: Path, *, variant: str | None) -> Iterator[Path]:
    if not (folder / "model_index.json").is_file():
        raise MissingError(f"{folder} has no model_index.json: not a diffusers model folder", where="model.source")
    for part in MODEL_PARTS:
        plain = [p for p in (folder / part).glob("*") if p.suffix in PLAIN_SUFFIXES]
        if not plain:
            raise MissingError(
                f"{folder} has no {part}/ with its configuration: not a diffusers model folder", where="model.source"
            )
        yield from plain
    ending = f".{variant}.safetensors" if variant else ".safetensors"
    for part in WEIGHT_PARTS:
        yield from _weights(folder / part, ending=ending, field="model.source")


def _weights(part: Path, *, ending: str, field: str) -> list[Path]:
    found = [p for p in part.glob(f"*{ending}") if p.name.count(".") == ending.count(".") or "-of-" in p.name]
    if found:
        return found
    others = sorted(p.name for p in part.glob("*") if p.suffix in {".bin", ".ckpt", ".msgpack", ".safetensors"})
    there = f" (it holds {', '.join(others)})" if others else ""
    raise MissingError(
        f"{part} holds no weights that end in {ending}{there}.",
        where=field,
        next_step="Only safetensors are read: convert the weights first, or set model.variant to what the folder has.",
    )


def _refuse_unknown_models(folder: Path) -> None:
    if (folder / "text_encoder_2").exists():
        raise UsageError(f"{folder} is an SDXL model; this version trains Stable Diffusion 1.x and 2.x", where="model.source")
    channels = read_config(folder / "unet" / "config.json").get("in_channels", 4)
    vae = read_config(folder / "vae" / "config.json").get("latent_channels", 4)
    if channels != vae:
        raise UsageError(
            f"the UNet takes {channels} channels where the VAE makes {vae}: an inpainting or depth model, not text to image",
            where="model.source",
        )


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage_index(job: JobSpec, *, store: ObjectStore, may_write: bool, check_stop: Callable[[], None], log: Log) -> Index:
    """The run's ordered index: the one that the first attempt wrote, or a scan of every picture."""
    try:
        return Index.from_jsonl(store.read(INDEX_KEY))
    except ObjectMissingError:
        index = _scan(job, check_stop=check_stop, log=log)
    if may_write:
        store.write(INDEX_KEY, index.to_jsonl())
    return index


def _scan(job: JobSpec, *, check_stop: Callable[[], None], log: Log) -> Index:
    folder = local_folder(job.data.source, field="data.source")
    records = list_records(folder, image_column=job.data.image_column, caption_column=job.data.caption_column)

    def on_progress(done: int, count: int) -> None:
        check_stop()
        log.progress(f"looking at pictures: {done}/{count}")

    result = scan(
        folder, records=records, workers=max(1, job.run.workers), max_samples=job.data.max_samples, on_progress=on_progress
    )
    check_bad_share(result, max_bad_share=job.data.max_bad_share, log=log)
    log.event("scanned", f"{len(result.index)} pictures, {len(result.bad)} left out", pictures=len(result.index))
    return result.index

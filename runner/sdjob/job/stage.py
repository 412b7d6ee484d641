"""Brings what a job names to this machine and looks at it: the base model's files and the weights to start from.

A folder on this machine is used where it stands; what lies in a bucket or on the Hub is fetched to scratch.
"""

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdjob.core.errors import MissingError, UsageError
from sdjob.diffusion.family import FAMILY_FILES, read_config
from sdjob.diffusion.tensor_file import refuse_torn
from sdjob.job.adapt import adapted
from sdjob.job.fetch import Fetched, Here, fetch, file_sha256
from sdjob.job.model_files import FROM_ONE_FILE, SAFE, Method, fetched_files, training_files, weight_files
from sdjob.job.one_file import one_file_at, one_file_of, unpacked
from sdjob.job.pins import init_place, model_place
from sdjob.job.weights import DIFFUSERS_LORA
from sdjob.spec.job import JobSpec
from sdjob.spec.places import Place, parse_place

MODEL, INIT = "model.source", "train.init_from"


@dataclass(frozen=True)
class StagedModel:
    folder: Path
    hashes: dict[str, str]
    """sha256 of every file that training reads, by its path in the folder."""


def local_folder(text: str, *, field: str) -> Path:
    """The folder of a place on this machine."""
    path = parse_place(text, base=Path.cwd()).path
    if not path.exists():
        raise MissingError(
            f"{text} does not exist.", where=field, next_step="Check the spelling; a relative path starts in the present folder."
        )
    return path


def local_model(text: str, *, field: str) -> Path:
    path = local_folder(text, field=field)
    if not path.is_dir():
        raise MissingError(f"{text} is a file; a model is a folder in diffusers' layout.", where=field, next_step=FROM_ONE_FILE)
    return path


# ---- the base model --------------------------------------------------------------------------------------------------------


def stage_model(job: JobSpec, *, here: Here) -> StagedModel:
    """Raises MissingError (66) where the place holds no model in diffusers' layout, or none of safetensors."""
    place, variant, single = model_place(job), job.model.variant, one_file_of(job)
    if place.scheme == "file" and single is None:
        folder = local_model(job.model.source, field=MODEL)
        names = training_files(file_names(folder), variant=variant, where=str(folder))
        hashes = hashed(folder, names=names, check_stop=here.check_stop)
    else:
        method = job.train.method
        fetched = (
            unpacked(single, here=here) if single else fetch_model(place, variant=variant, method=method, here=here, field=MODEL)
        )
        folder = fetched.folder
        names = training_files(list(fetched.hashes), variant=variant, where=place.uri)
        hashes = {name: fetched.hashes[name] for name in names}
    _refuse_torn(folder, names, where=place.uri)
    model = _adapted(StagedModel(folder=folder, hashes=hashes), job=job, here=here)
    _refuse_unknown_channels(model.folder)
    return model


def _adapted(model: StagedModel, *, job: JobSpec, here: Here) -> StagedModel:
    folder = adapted(model.folder, job=job, here=here)
    if folder == model.folder:
        return model
    names = training_files(file_names(folder), variant=job.model.variant, where=str(folder))
    _refuse_torn(folder, [name for name in names if name.startswith("vae/")], where=job.model.vae or "")
    new = [name for name in names if name not in model.hashes or not (folder / name).samefile(model.folder / name)]
    kept = {name: model.hashes[name] for name in names if name not in new}
    return StagedModel(folder, kept | hashed(folder, names=new, check_stop=here.check_stop))


def model_folder(place: Place, *, variant: str | None, method: Method, here: Here, field: str) -> Path:
    """A model for whoever only reads it: to draw samples, to export."""
    if single := one_file_at(place, field=field):
        return unpacked(single, here=here).folder
    if place.scheme == "file":
        return local_model(place.name, field=field)
    return fetch_model(place, variant=variant, method=method, here=here, field=field).folder


def base_model(job: JobSpec, *, method: Method, here: Here) -> Path:
    """The model of a job, as it was trained on, for whoever only reads it."""
    if single := one_file_of(job):
        return adapted(unpacked(single, here=here).folder, job=job, here=here)
    folder = model_folder(model_place(job), variant=job.model.variant, method=method, here=here, field=MODEL)
    return adapted(folder, job=job, here=here)


def model_configs(job: JobSpec, *, here: Here) -> Path:
    """A folder with at least the configurations that tell a model's family: of a distant one nothing else is fetched."""
    place = model_place(job)
    if single := one_file_of(job):
        folder = unpacked(single, here=here).folder
    elif place.scheme == "file":
        folder = local_model(place.name, field=MODEL)
    else:
        folder = fetch(place, choose=lambda names: sorted({*FAMILY_FILES} & {*names}), here=here, field=MODEL).folder
    return adapted(folder, job=job, here=here, configs_alone=True)


def fetch_model(place: Place, *, variant: str | None, method: Method, here: Here, field: str) -> Fetched:
    def choose(names: Sequence[str]) -> list[str]:
        return fetched_files(names, variant=variant, method=method, where=place.uri)

    return fetch(place, choose=choose, here=here, field=field)


def file_names(folder: Path) -> list[str]:
    """Of the files in a model's folder and in its parts, sorted."""
    found = (path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def hashed(folder: Path, *, names: Sequence[str], check_stop: Callable[[], None]) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for name in names:
        check_stop()
        hashes[name] = file_sha256(folder / name)
    return hashes


def _refuse_torn(folder: Path, names: Sequence[str], *, where: str) -> None:
    for name in names:
        if name.endswith(SAFE):
            refuse_torn(folder / name, where=f"{where}/{name}")


def _refuse_unknown_channels(folder: Path) -> None:
    channels = read_config(folder / "unet" / "config.json").get("in_channels", 4)
    vae = read_config(folder / "vae" / "config.json").get("latent_channels", 4)
    if channels != vae:
        raise UsageError(
            f"the UNet takes {channels} channels where the VAE makes {vae}: an inpainting or depth model, not text to image.",
            where=MODEL,
            next_step="Name the text-to-image model that it was made from.",
        )


# ---- what the weights start from -------------------------------------------------------------------------------------------


def stage_init_from(job: JobSpec, *, here: Here) -> tuple[Path | None, dict[str, str]]:
    """What the trainer starts from (a LoRA's file, or a UNet's folder) and the hashes of its weights."""
    place = init_place(job)
    if place is None:
        return None, {}
    if place.scheme == "file":
        path = local_folder(place.name, field=INIT)
        folder, names = (path.parent, [path.name]) if path.is_file() else (path, file_names(path))
    else:
        fetched = fetch_start(place, job=job, here=here)
        folder, names = fetched.folder, list(fetched.hashes)
    chosen = _init_files(job, names, place.uri)
    _refuse_torn(folder, chosen, where=folder.as_uri() if place.scheme == "file" else place.uri)
    if job.train.method == "lora":
        return folder / chosen[0], {"init_from": file_sha256(folder / chosen[0])}
    unet = folder / posixpath.dirname(chosen[0])
    weights = [folder / name for name in chosen if name.endswith(SAFE)]
    return unet, {f"init_from/{path.name}": file_sha256(path) for path in weights}


def fetch_start(place: Place, *, job: JobSpec, here: Here) -> Fetched:
    """In a bucket the place may be one file: it is that object below the prefix that it stands in."""
    prefix, _, file = place.prefix.rpartition("/")
    if place.scheme == "hf" or not file.endswith(SAFE):
        return fetch(place, choose=lambda names: _init_files(job, names, place.uri), here=here, field=INIT)
    parent = replace(place, prefix=prefix)
    return fetch(parent, choose=lambda names: _init_files(job, sorted({file} & {*names}), place.uri), here=here, field=INIT)


def _init_files(job: JobSpec, names: Sequence[str], where: str) -> list[str]:
    if job.train.method == "lora":
        return [_lora_file(names, where=where)]
    part = "unet" if any(name.startswith("unet/") for name in names) else ""
    config = posixpath.join(part, "config.json")
    if config not in names:
        raise MissingError(f"{where} is neither a pipeline's folder nor a UNet's (there is no {config}).", where=INIT)
    return [config, *sorted(weight_files(names, part=part, ending=SAFE, where=where, field=INIT))]


def _lora_file(names: Sequence[str], *, where: str) -> str:
    """Diffusers' own name before a file that stands alone."""
    files = sorted(name for name in names if "/" not in name and name.endswith(SAFE))
    if DIFFUSERS_LORA in files or len(files) == 1:
        return DIFFUSERS_LORA if DIFFUSERS_LORA in files else files[0]
    if not files:
        raise MissingError(f"{where} holds no safetensors file.", where=INIT, next_step="Name a LoRA's file or folder.")
    raise UsageError(f"{where} holds several LoRA files ({', '.join(files)}).", where=INIT, next_step="Name one of them.")

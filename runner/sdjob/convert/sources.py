"""`name`, `model` and `data`: what a command's names and paths mean."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from sdjob.convert.request import Answer, Note, Request, Setting
from sdjob.convert.words import shown
from sdjob.core.errors import UsageError
from sdjob.spec.job import LONGEST_NAME
from sdjob.spec.places import HUB_NAME

MODEL, DATASET, FOLDER = "pretrained_model_name_or_path", "dataset_name", "train_data_dir"
# What `load_dataset` takes for a way to read `data_dir`: https://huggingface.co/docs/datasets/loading
IMAGE_FOLDERS = ("imagefolder", "parquet", "webdataset")
OTHER_BUILDERS = ("json", "csv", "text", "arrow", "audiofolder", "videofolder", "pandas", "sql", "xml")


def job_name(request: Request) -> str:
    """A DNS label: after the output folder, else after the model."""
    for name in (request.value("output_dir"), request.value(MODEL)):
        label = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(name).name.lower())[:LONGEST_NAME].strip("-")
        if label:
            return label
    return "job"


def model(request: Request) -> Iterator[Answer]:
    source = place(request, MODEL)
    comment = ""
    if request.script == "flax" and not request.has("from_pt"):
        comment = "must hold safetensors, as torch's users publish them; Flax weights are not read"
        yield Note("", f"{request.file} without --from_pt reads Flax weights, and sdjob reads safetensors: see model.source.")
    yield Setting("model.source", source, MODEL, comment, always=True)
    yield from revision(request, source=source)
    if request.has("variant") and request.script != "flax":
        part = "the UNet" if request.script == "full" else "the text encoder"
        yield Setting("model.variant", request.value("variant"), "variant", f"for all parts; the script reads {part} without it")


def revision(request: Request, *, source: str) -> Iterator[Answer]:
    on_hub = source.startswith("hf://")
    given = request.value("revision")
    if given is not None and on_hub:
        yield Setting("model.revision", given, "revision")
    elif given is not None:
        yield Note("--revision", f"{request.flag('revision').because}, and the model is one.")
    non_ema = request.value("non_ema_revision")
    if non_ema is not None and not on_hub:
        yield Note("--non_ema_revision", "a folder has no revisions, and the model is one.")


def start(request: Request) -> Iterator[Answer]:
    """The full script trains the UNet of `non_ema_revision`, with all other parts of `revision`."""
    source, non_ema = place(request, MODEL), request.value("non_ema_revision")
    if non_ema is not None and source.startswith("hf://") and non_ema != request.value("revision"):
        yield Setting("train.init_from", f"{source}@{non_ema}", "non_ema_revision", "the UNet alone")


def data(request: Request) -> Iterator[Answer]:
    yield from data_source(request)
    for column in ("image_column", "caption_column"):
        yield Setting(f"data.{column}", request.value(column), column, always=request.has(column))
    if request.has("max_train_samples"):
        comment = "the first ones; the script shuffles before it takes so many"
        yield Setting("data.max_samples", request.value("max_train_samples"), "max_train_samples", comment)
    resized = "resized by Lanczos; the flax script takes bilinear" if request.script == "flax" else ""
    yield Setting("data.resolution", request.value("resolution"), "resolution", resized, always=True)
    crop = "center" if request.value("center_crop") else "random"
    yield Setting("data.crop", crop, "center_crop", "" if crop == "center" else "without --center_crop", always=True)
    yield Setting("data.flip", request.value("random_flip"), "random_flip", always=request.value("random_flip"))


def data_source(request: Request) -> Iterator[Answer]:
    name, folder = request.value(DATASET), request.value(FOLDER)
    if name is None or (name in IMAGE_FOLDERS and folder is not None and not request.is_folder_here(name)):
        yield Setting("data.source", home_filled(folder), FOLDER, always=True)
        return
    yield Setting("data.source", place(request, DATASET), DATASET, always=True)
    if folder is not None:
        yield Note(f"--{FOLDER}", f"with --{DATASET} it names a part of that data set, which has no equal: all of it is used.")
    if request.has("dataset_config_name"):
        yield Setting("data.config", request.value("dataset_config_name"), "dataset_config_name")


def place(request: Request, name: str) -> str:
    """A name on the Hub as hf://, a folder as it is; UsageError where it can be neither."""
    text = str(request.value(name))
    if text.startswith(("/", "./", "../", "~")) or text in {".", ".."} or request.is_folder_here(text):
        return home_filled(text)
    parts = text.split("/")
    if "://" in text or re.search(r"[{}$]", text):
        what = "an address, and the script takes none" if "://" in text else "a name with a place left open"
        raise UsageError(f"--{name} {shown(text)} is {what}.", next_step="Write owner/name, or a folder as ./path.")
    if len(parts) == 2 and all(HUB_NAME.fullmatch(part) for part in parts):
        return f"hf://{text}"
    if len(parts) > 2:
        return text
    if name == DATASET and text in OTHER_BUILDERS:
        raise UsageError(
            f"--{name} {text}: this kind of data set is not read; allowed with --{FOLDER}: {', '.join(IMAGE_FOLDERS)}."
        )
    raise UsageError(
        f"--{name} {shown(text)} names no owner on the Hub, and there is no such folder here.",
        next_step=f"Write owner/{text} for the Hub, or ./{text} for a folder.",
    )


def home_filled(path: str) -> str:
    """`~/x` as the job file spells it; `~name/x` is left for it to refuse."""
    return "${HOME}" + path[1:] if path == "~" or path.startswith("~/") else path

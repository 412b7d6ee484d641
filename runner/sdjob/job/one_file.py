"""A model in one file becomes a diffusers folder on scratch, beside what was fetched: everything else reads such folders alone.

scratch/models/single-KEY/        the folder; KEY follows from the file's bytes and the configuration's
scratch/models/single-KEY.json    its files' sha256
"""

import hashlib
import json
import posixpath
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdjob.core.errors import MissingError, UsageError
from sdjob.diffusion.family import Family, read_config
from sdjob.diffusion.single_file import Sizes, family_of_file, parts_of
from sdjob.diffusion.tensor_file import read_tensors, refuse_torn, write_tensors
from sdjob.job.fetch import FOLDER, Fetched, Here, fetch, file_sha256, locked, require_room, verified
from sdjob.job.model_files import INDEX, SAFE, config_files
from sdjob.job.pins import config_place, model_place
from sdjob.spec.job import JobSpec
from sdjob.spec.places import Place, parse_place
from sdjob.store.base import scratch_errors

CONFIG = "model.config"
# Those that diffusers takes: https://github.com/huggingface/diffusers/blob/v0.42.0/src/diffusers/loaders/single_file_utils.py
# (DIFFUSERS_DEFAULT_PIPELINE_PATHS). SD 2.x has none here: a file does not tell whether it predicts the noise or the velocity.
DEFAULT_CONFIGS: Mapping[Family, str] = {
    "sd1": "hf://stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "hf://stabilityai/stable-diffusion-xl-base-1.0",
}
WEIGHTS = {"unet": f"diffusion_pytorch_model{SAFE}", "vae": f"diffusion_pytorch_model{SAFE}"}
TEXT_WEIGHTS = f"model{SAFE}"


@dataclass(frozen=True)
class OneFile:
    """Where such a model lies."""

    folder: Place
    name: str
    config: Place | None
    """Of a diffusers folder of the same model; None: the one that everybody takes for its family."""

    field: str = "model.source"


def one_file_of(job: JobSpec) -> OneFile | None:
    """None where the job's model is a folder in diffusers' layout."""
    found = one_file_at(model_place(job), name=job.model.file)
    return found and replace(found, config=config_place(job))


def one_file_at(place: Place, *, name: str | None = None, field: str = "model.source") -> OneFile | None:
    if name is not None:
        return OneFile(place, name, None, field)
    path = place.name if place.scheme == "file" else place.prefix
    if place.scheme == "hf" or not path.endswith(SAFE) or (place.scheme == "file" and place.path.is_dir()):
        return None
    parent, _, file = path.rpartition("/")
    folder = replace(place, name=parent or "/") if place.scheme == "file" else replace(place, prefix=parent)
    return OneFile(folder, file, None, field)


def unpacked(given: OneFile, *, here: Here) -> Fetched:
    """The folder that it becomes, and its files' hashes. What the fetching and the reading of the file raise."""
    file, sha256 = _file(given, here=here)
    where = f"{given.folder.uri}/{given.name}"
    refuse_torn(file, where=where)
    stored = read_tensors(file)
    config = _config(given, family=family_of_file(stored, where=where), here=here)
    key = hashlib.sha256(json.dumps([sha256, sorted(config.hashes.items())]).encode()).hexdigest()[:32]
    made = here.scratch / FOLDER / f"single-{key}"
    with scratch_errors(made.parent):
        made.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    receipt = made.with_name(f"{made.name}.json")
    with locked(made.with_name(f"{made.name}.lock"), here=here):
        hashes = verified(made, receipt=receipt, here=here)
        if hashes is None:
            configs = {part: read_config(config.folder / part / "config.json") for part in _weighty(config.hashes)}
            parts = parts_of(stored, sizes=Sizes.of(configs), where=where)
            with scratch_errors(made.parent):
                hashes = _make(made, parts=parts, config=config, size_bytes=file.stat().st_size, here=here)
                receipt.write_text(json.dumps(hashes), encoding="utf-8")
    return Fetched(made, hashes)


def _file(given: OneFile, *, here: Here) -> tuple[Path, str]:
    if given.folder.scheme != "file":
        fetched = fetch(given.folder, choose=lambda names: named(names, given), here=here, field=given.field)
        return fetched.folder / given.name, fetched.hashes[given.name]
    path = given.folder.path / given.name
    if not path.is_file():
        raise MissingError(f"{path} does not exist.", where=given.field, next_step="Check the spelling.")
    here.check_stop()
    return path, file_sha256(path)


def named(names: Sequence[str], given: OneFile) -> list[str]:
    if given.name in names:
        return [given.name]
    loose = sorted(name for name in names if "/" not in name and name.endswith(SAFE))
    there = f" (it holds {', '.join(loose[:3])})" if loose else ""
    raise MissingError(f"{given.folder.uri} has no {given.name}{there}.", where=given.field, next_step="Check the spelling.")


def _config(given: OneFile, *, family: Family, here: Here) -> Fetched:
    """The configurations and the tokenizer that the file does not hold."""
    place = given.config
    if place is None and family not in DEFAULT_CONFIGS:
        raise UsageError(
            "of Stable Diffusion 2.x one file does not tell whether the model predicts the noise or the velocity.",
            where=CONFIG,
            next_step="Name a folder in diffusers' layout of the model that the file was made from; its weights are not read.",
        )
    place = place or parse_place(DEFAULT_CONFIGS[family], base=Path.cwd()).on_hub("models")
    if place.scheme != "file":
        return fetch(place, choose=lambda names: config_files(names, where=place.uri, field=CONFIG), here=here, field=CONFIG)
    there = [path.relative_to(place.path).as_posix() for form in ("*", "*/*") for path in place.path.glob(form) if path.is_file()]
    names = config_files(there, where=place.uri, field=CONFIG)
    return Fetched(place.path, {name: file_sha256(place.path / name) for name in names})


def _weighty(names: Mapping[str, str]) -> list[str]:
    """The parts that have weights."""
    parts = {posixpath.dirname(name) for name in names}
    return sorted(part for part in parts if part in WEIGHTS or part.startswith("text_encoder"))


def _make(made: Path, *, parts: Mapping[str, Any], config: Fetched, size_bytes: int, here: Here) -> dict[str, str]:
    """Aside, and then under its name: a killed process leaves nothing that looks whole."""
    for left in (made, *made.parent.glob(f"{made.name}.new-*")):  # the lock is ours: their process is dead
        shutil.rmtree(left, ignore_errors=True)
    require_room(size_bytes, folder=made.parent)
    here.log.event("unpack", f"taking a model of {size_bytes / 2**20:.0f} MiB in one file apart", size_bytes=size_bytes)
    aside = made.with_name(f"{made.name}.new-{secrets.token_hex(4)}")
    try:
        for name in config.hashes:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(config.folder / name, aside / name)
        _write_index(aside, parts=parts)
        for part, tensors in parts.items():
            here.check_stop()
            write_tensors(aside / part / WEIGHTS.get(part, TEXT_WEIGHTS), tensors=tensors, metadata={"format": "pt"})
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        hashes = {path.relative_to(aside).as_posix(): file_sha256(path) for path in files}
        aside.rename(made)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return hashes


def _write_index(folder: Path, *, parts: Mapping[str, Any]) -> None:
    """Without the parts whose weights no such file holds, as the safety checker's."""
    index = read_config(folder / INDEX)
    for name, value in index.items():
        plain = name in parts or name.startswith(("scheduler", "tokenizer"))
        if isinstance(value, list) and not plain:
            index[name] = [None, None]
    if "safety_checker" in index:
        index["requires_safety_checker"] = False
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

"""The base model as the job wants it: with another VAE, or with a noise schedule of zero terminal SNR.

What trains, draws, publishes and exports reads one model folder, so the changes are made there once: a folder on scratch, whose
parts are links into the base's folder but for what differs.
"""

import hashlib
import json
import posixpath
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdjob.core.errors import MissingError, UsageError
from sdjob.diffusion.family import SCHEDULER_CONFIG, read_config
from sdjob.diffusion.schedule import zero_terminal_config
from sdjob.job.fetch import FOLDER, Here, fetch
from sdjob.job.model_files import INDEX, SAFE, weight_files
from sdjob.job.pins import vae_place
from sdjob.spec.job import JobSpec
from sdjob.spec.places import Place
from sdjob.store.base import scratch_errors

VAE, ZERO_SNR = "model.vae", "train.loss.zero_terminal_snr"
VAE_CONFIG, VAE_WEIGHTS = "config.json", "diffusion_pytorch_model"


@dataclass(frozen=True)
class Changes:
    """Files of the adapted folder that are not the base's, by their names there."""

    texts: dict[str, bytes]
    links: dict[str, Path]

    @property
    def parts(self) -> set[str]:
        return {posixpath.dirname(name) for name in (*self.texts, *self.links)}


def adapted(folder: Path, *, job: JobSpec, here: Here, configs_alone: bool = False) -> Path:
    """`folder` itself where the job changes nothing. Of `configs_alone` only what tells the model's kind is adapted."""
    texts = zero_terminal_texts(folder) if job.train.loss.zero_terminal_snr else {}
    place = None if configs_alone else vae_place(job)
    changes = Changes(texts, {} if place is None else vae_links(place, variant=job.model.variant, here=here))
    if not changes.parts:
        return folder
    root = here.scratch / FOLDER
    made = root / f"adapted-{key_of(folder, changes)}"
    with scratch_errors(root):
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not made.is_dir():
            _make(made, base=folder.resolve(), changes=changes)
    return made


def key_of(folder: Path, changes: Changes) -> str:
    told = [str(folder.resolve()), sorted(path.name for path in folder.iterdir())]
    told += [{name: text.decode() for name, text in changes.texts.items()}, {n: str(p) for n, p in changes.links.items()}]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _make(made: Path, *, base: Path, changes: Changes) -> None:
    """Aside, and then under its name, which another process may have taken meanwhile: with the same content."""
    aside = made.with_name(f"{made.name}.new-{secrets.token_hex(4)}")
    aside.mkdir()
    changed = {name for name in changes.texts if "/" not in name} | {part for part in changes.parts if part}
    for path in base.iterdir():
        if path.name not in changed:
            (aside / path.name).symlink_to(path)
    for part in changes.parts:
        (aside / part).mkdir(exist_ok=True)
    for name, text in changes.texts.items():
        (aside / name).write_bytes(text)
    for name, path in changes.links.items():
        (aside / name).symlink_to(path)
    try:
        aside.rename(made)
    except OSError:
        shutil.rmtree(aside)
        if not made.is_dir():
            raise


# ---- zero terminal SNR -----------------------------------------------------------------------------------------------------


def zero_terminal_texts(folder: Path) -> dict[str, bytes]:
    """The scheduler's configuration, and the index where the scheduler had to become another one."""
    config = zero_terminal_config(read_config(folder / SCHEDULER_CONFIG), where=ZERO_SNR)
    texts = {SCHEDULER_CONFIG: as_json(config)}
    if (folder / INDEX).is_file():
        index = read_config(folder / INDEX)
        texts[INDEX] = as_json({**index, "scheduler": ["diffusers", config["_class_name"]]})
    return texts


def as_json(content: object) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


# ---- another VAE -----------------------------------------------------------------------------------------------------------


def vae_links(place: Place, *, variant: str | None, here: Here) -> dict[str, Path]:
    """A VAE's own folder, or that of a pipeline which has one, as the base's `vae/`."""
    if place.scheme == "file":
        folder = place.path
        if not folder.is_dir():
            raise MissingError(f"{folder} is no folder.", where=VAE, next_step="Name a VAE's folder, or that of its pipeline.")
        names = [path.relative_to(folder).as_posix() for end in ("*", "vae/*") for path in folder.glob(end) if path.is_file()]
    else:
        fetched = fetch(place, choose=lambda names: _vae_files(names, variant=variant, where=place.uri), here=here, field=VAE)
        folder, names = fetched.folder, list(fetched.hashes)
    config, weights = _vae_files(names, variant=variant, where=place.uri)
    # The model's parts are read in one variant, so the VAE's weights take its name.
    own = f"{VAE_WEIGHTS}.{variant}{SAFE}" if variant else f"{VAE_WEIGHTS}{SAFE}"
    return {f"vae/{VAE_CONFIG}": (folder / config).resolve(), f"vae/{own}": (folder / weights).resolve()}


def _vae_files(names: Sequence[str], *, variant: str | None, where: str) -> list[str]:
    """(configuration, weights): those of the variant, else those without one."""
    part = "vae" if any(name.startswith("vae/") for name in names) else ""
    config = posixpath.join(part, VAE_CONFIG)
    if config not in names:
        raise MissingError(f"{where} is neither a VAE's folder nor a pipeline's (there is no {config}).", where=VAE)
    of_variant = posixpath.join(part, f"{VAE_WEIGHTS}.{variant}{SAFE}")
    if variant and of_variant in names:
        return [config, of_variant]
    found = weight_files(names, part=part, ending=SAFE, where=where, field=VAE)
    if len(found) > 1:
        raise UsageError(f"{where} holds several weight files ({', '.join(sorted(found))}).", where=VAE)
    return [config, found[0]]

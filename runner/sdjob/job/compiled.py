"""Programs that jax or torch compiled: brought before the training, and kept, so that the next attempt compiles nothing again.

scratch/xla/KIND/NAME.SHA256        of this machine, shared by attempts and jobs; torch's in inductor/
attempt/xla/NAME                    the trainer's own: it reads here, and writes what it had to compile
cache/xla/KIND/NAME.SHA256          in the run's place

Of jax each is a program; of torch, which has several files for each, a pack of all that one step had to compile.
KIND is a hash of what such a program runs on. One that is missing, or is not what its name says, is compiled again: whatever
goes wrong here is a warning. Whoever may write to the run's place may thereby do what the trainer may.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdjob.core.cpu import cpu_model
from sdjob.core.errors import DataError, DeniedError, MissingError, StorageError
from sdjob.core.log import Log
from sdjob.job.machine import installed_version
from sdjob.job.resume import Resolution
from sdjob.spec.job import JobSpec
from sdjob.spec.task import Device
from sdjob.spec.train import Backend
from sdjob.store.base import ObjectInfo, ObjectStore
from sdjob.store.transfer import download_tree

FOLDERS: dict[Backend, str] = {"flax": "xla", "torch": "inductor"}
PACKAGES: dict[Backend, tuple[str, ...]] = {"flax": ("jax", "jaxlib", "libtpu"), "torch": ("torch", "triton")}
# As jax names its entries, and the torch trainer its packs: https://github.com/jax-ml/jax/blob/jax-v0.10.2/jax/_src/lru_cache.py
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,159}-cache")
KEPT = re.compile(rf"({NAME.pattern})\.([0-9a-f]{{64}})")
# A step of SD 1.5 is some 100 MB of machine code; a run has a handful of programs.
MOST_BYTES = 4 * 2**30
TROUBLE = (StorageError, DeniedError, MissingError, DataError, OSError)


def kind_of(device: Device, *, accelerator: str | None, backend: Backend = "flax", arithmetic: Sequence[object] = ()) -> str:
    """`arithmetic`: what is compiled into a program and is no part of its name."""
    packages = {package: installed_version(package) for package in PACKAGES[backend]}
    runs_on = cpu_model() if device == "cpu" else accelerator
    return hashlib.sha256(json.dumps([device, runs_on, packages, *arithmetic]).encode()).hexdigest()[:16]


def arithmetic_of(resolution: Resolution) -> tuple[object, ...]:
    """jax puts its own into the names."""
    train = resolution.job.train
    return () if train.backend == "flax" else (resolution.threads, resolution.isa, train.deterministic)


def compiled_folder(job: JobSpec, *, attempt: Path) -> Path | None:
    """None where there is nothing to bring or keep: torch may compile nothing, and whoever names a folder to jax keeps it."""
    train = job.train
    ours = train.compile if train.backend == "torch" else not os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return attempt / FOLDERS[train.backend] if ours else None


@dataclass
class CompiledPrograms:
    store: ObjectStore
    shared: Path
    own: Path
    kind: str
    check_stop: Callable[[], None]
    log: Log
    backend: Backend = "flax"
    _there: dict[str, int] = field(default_factory=dict[str, int])
    """Sizes of what the run's place has, by name."""

    _keeper: threading.Thread | None = None

    @property
    def _place(self) -> str:
        return f"cache/{FOLDERS[self.backend]}"

    def bring(self) -> None:
        """Everything that is known, into the trainer's folder."""
        for bring in (self._make_folders, self._fetch, self._give_all):
            try:
                bring()
            except TROUBLE as error:
                self.log.warning("compiled", f"what was compiled before could not be brought, so it is compiled again: {error}")

    def _make_folders(self) -> None:
        for folder in (self.shared, self.own):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep(self, names: Sequence[str]) -> None:
        """Beside the training: nobody waits for it."""
        before = self._keeper

        def work() -> None:
            if before is not None:
                before.join()
            try:
                for name in names:
                    self._keep(name)
                drop_oldest(self.shared, most_bytes=MOST_BYTES)
            except TROUBLE as error:
                self.log.warning("compiled", f"what was compiled is not kept for the next attempt: {error}")

        self._keeper = threading.Thread(target=work, name="compiled", daemon=True)
        self._keeper.start()

    def finish(self, *, timeout_s: float) -> None:
        if self._keeper is not None:
            self._keeper.join(timeout_s)

    # ---- in ----------------------------------------------------------------------------------------------------------------

    def _fetch(self) -> None:
        prefix = f"{self._place}/{self.kind}/"
        infos = {info.key.removeprefix(prefix): info for info in self.store.list(prefix)}
        self._there = {name: info.size_bytes for name, info in infos.items() if KEPT.fullmatch(name)}
        absent = list(self._absent(infos))
        if not absent:
            return
        aside = self.own.with_name(f"{self.own.name}-new")  # below the attempt's folder, which is swept
        try:
            got = download_tree(self.store, infos=absent, into=aside, check_stop=self.check_stop)
            for key, fetched in got.items():
                if key.endswith(fetched.sha256):
                    (aside / key).replace(self.shared / key.removeprefix(prefix))
                else:
                    self.log.warning("compiled", f"{key} is not what was kept: that program is compiled again")
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _absent(self, infos: dict[str, ObjectInfo]) -> Iterator[ObjectInfo]:
        left = MOST_BYTES
        for name in self._there:
            left -= self._there[name]
            if left >= 0 and not (self.shared / name).exists():
                yield infos[name]

    def _give_all(self) -> None:
        for path in sorted(self.shared.iterdir()):
            self._give(path)

    def _give(self, path: Path) -> None:
        """A copy, since jax may touch it; one that has changed on the disk is taken away."""
        match = KEPT.fullmatch(path.name)
        if match is None:
            return
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == match[2]:
            (self.own / match[1]).write_bytes(content)
        else:
            path.unlink(missing_ok=True)
            self.log.warning("compiled", f"{path} is not what was kept: that program is compiled again")

    # ---- out ---------------------------------------------------------------------------------------------------------------

    def _keep(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise DataError(f"{name!r} is no name of a compiled program.")
        content = (self.own / name).read_bytes()
        kept = self.shared / f"{name}.{hashlib.sha256(content).hexdigest()}"
        aside = kept.with_name(f".{secrets.token_hex(8)}")
        aside.write_bytes(content)
        os.replace(aside, kept)  # noqa: PTH105 - names the duty: over what another attempt made at the same time
        if kept.name in self._there:
            return
        if sum(self._there.values()) + len(content) > MOST_BYTES:
            raise StorageError(f"{self._place} has reached its {MOST_BYTES / 2**30:g} GiB.")
        self.store.write_file(f"{self._place}/{self.kind}/{kept.name}", kept)
        self._there[kept.name] = len(content)


def drop_oldest(folder: Path, *, most_bytes: int) -> None:
    """Attempts have copies of their own, so nothing that is in use is taken away."""
    found = [(path.stat().st_mtime, path.stat().st_size, path) for path in folder.iterdir()]
    left = most_bytes
    for _, size_bytes, path in sorted(found, reverse=True):
        left -= size_bytes
        if left < 0:
            path.unlink(missing_ok=True)

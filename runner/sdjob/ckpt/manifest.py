"""A snapshot's table of contents: which files, with which hashes, in which blobs, and what was true when it was taken."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sdjob.core.errors import SdjobError, UnsoundError

FORMAT = 1
CHUNK_BYTES = 4 * 1024 * 1024
MUST_BE_FINITE = ("loss", "grad_norm")


class DamagedBlobError(UnsoundError):
    """An object of a commit is missing, or its bytes are not those that were committed."""


@dataclass(frozen=True, kw_only=True)
class HashedFile:
    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    sha256: str
    size_bytes: int
    blob: str
    """The key; it lies under the epoch that uploaded it, which may be an earlier one."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    step: int
    digest: str
    files: Mapping[str, StoredFile]
    facts: Mapping[str, Any]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())

    def to_bytes(self) -> bytes:
        files = {name: vars(file) for name, file in self.files.items()}
        fields = {"format": FORMAT, "step": self.step, "digest": self.digest, "files": files, "facts": dict(self.facts)}
        return json.dumps(fields, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode()

    @staticmethod
    def from_bytes(data: bytes) -> "Manifest":
        """From bytes whose hash has been checked already, so that only another version's format can be wrong."""
        fields = cast("dict[str, Any]", json.loads(data))
        if fields["format"] != FORMAT:
            raise UnsoundError(
                f"this commit was written in format {fields['format']}, this version of sdjob reads {FORMAT}.",
                next_step="Go on with the version that wrote it, or a newer one.",
            )
        files = {_plain(name): StoredFile(**file) for name, file in fields["files"].items()}
        return Manifest(step=fields["step"], digest=fields["digest"], files=files, facts=fields["facts"])


def hashed_snapshot(folder: Path) -> dict[str, HashedFile]:
    """Every file of a snapshot's folder, which is flat."""
    try:
        return {path.name: hashed_file(path) for path in sorted(folder.iterdir())}
    except OSError as error:
        raise SdjobError(f"a snapshot is a folder of readable files: {error.strerror}.", where=str(folder)) from error


def hashed_file(path: Path) -> HashedFile:
    hasher, size_bytes = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            size_bytes += len(chunk)
    return HashedFile(path=path, sha256=hasher.hexdigest(), size_bytes=size_bytes)


def snapshot_digest(files: Mapping[str, HashedFile] | Mapping[str, StoredFile]) -> str:
    """sha256 over the sorted lines "name sha256" of the tensors' files and the scalars: the state, whatever lies beside it."""
    counted = sorted(name for name in files if name.endswith(".safetensors") or name == "state.json")
    return hashlib.sha256("".join(f"{name} {files[name].sha256}\n" for name in counted).encode()).hexdigest()


def refuse_unsound(facts: Mapping[str, Any], *, step: int) -> None:
    """UnsoundError where loss or gradient norm stand in the facts and are not finite numbers."""
    for name in MUST_BE_FINITE:
        value = facts.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UnsoundError(
                f"{name} is {value} at step {step}: such a state is never committed.",
                next_step="The last commit stands; lower the learning rate, or look at the data of the steps since then.",
            )


def _plain(name: str) -> str:
    if name in {"", ".", ".."} or "/" in name or "\\" in name or "\0" in name:
        raise UnsoundError(f"a commit names the file {name!r}, which could lead out of its folder.")
    return name

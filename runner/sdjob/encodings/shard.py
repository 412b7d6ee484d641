"""A shard's file: of each name one array, its rows the entries. Written whole or not at all, named by its own hash, and mapped.

    SCRATCH/encodings/NAME.SHA256.safetensors      shared by the attempts and jobs of a machine
    TO/cache/encodings/NAME.SHA256.safetensors     in the run's place

NAME says what was encoded, SHA256 which bits came out: on another kind of machine, or another backend, they may differ.
"""

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sdjob.core.errors import StorageError
from sdjob.data.shelf import file_sha256
from sdjob.diffusion.tensor_file import Span, StoredTensor, read_tensors, write_tensors

FOLDER, PLACE = "encodings", "cache/encodings"
SHARD_FILE = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{64})\.safetensors")
Dtype = Literal["F32", "F16", "BF16"]
# numpy has no bfloat16: its bits travel as whole numbers, and are the upper half of a float32's.
KINDS: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class Rows:
    """Entries' values under one name, as an encoder computed them."""

    dtype: Dtype
    values_E: NDArray[Any]
    """The first axis is the entries'."""


@dataclass(frozen=True)
class ShardFile:
    name: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name}.{self.sha256}.safetensors"

    @property
    def key(self) -> str:
        return f"{PLACE}/{self.file_name}"

    def is_whole(self, folder: Path) -> bool:
        return file_sha256(folder / self.file_name) == self.sha256

    @staticmethod
    def of(file_name: str) -> "ShardFile | None":
        match = SHARD_FILE.fullmatch(file_name)
        return ShardFile(match[1], match[2]) if match else None

    @staticmethod
    def at(key: str) -> "ShardFile | None":
        """Of an object in a place."""
        return ShardFile.of(key.removeprefix(f"{PLACE}/"))


def files_in(folder: Path) -> Iterator[ShardFile]:
    for path in folder.iterdir():
        if (file := ShardFile.of(path.name)) is not None:
            yield file


def write_shard(rows: Mapping[str, Rows], *, name: str, folder: Path, aside: Path) -> ShardFile:
    """Equal rows give equal bytes. `aside` is a folder of this process's own, on the same disk."""
    tensors = {key: stored(values) for key, values in rows.items()}
    unnamed = aside / f"{secrets.token_hex(8)}.safetensors"
    try:
        write_tensors(unnamed, tensors=tensors, metadata={})
        sha256 = file_sha256(unnamed)
        assert sha256 is not None, "it was written just now"
        file = ShardFile(name, sha256)
        os.replace(unnamed, folder / file.file_name)  # noqa: PTH105 - names the duty: over what another attempt made meanwhile
    except OSError as error:
        unnamed.unlink(missing_ok=True)
        raise StorageError(
            f"an encoding cannot be written: {error.strerror}.",
            where=str(folder),
            next_step="Make room there, set run.scratch to a larger disk, or set train.cache: never.",
        ) from error
    return file


def stored(rows: Rows) -> StoredTensor:
    values = np.ascontiguousarray(rows.values_E)
    return StoredTensor(rows.dtype, values.shape, values.nbytes, content=values.tobytes())


def mapped_shard(path: Path) -> dict[str, Rows]:
    """Nothing is read before it is used, and what was may be dropped by the kernel at any time."""
    return {name: Rows(tensor.dtype, mapped(tensor)) for name, tensor in read_tensors(path).items() if tensor.dtype in KINDS}  # pyright: ignore[reportArgumentType]


def mapped(tensor: StoredTensor) -> NDArray[Any]:
    assert isinstance(tensor.content, Span)
    return np.memmap(tensor.content.path, KINDS[tensor.dtype], mode="r", offset=tensor.content.offset, shape=tensor.shape)


def widened(values: NDArray[Any], *, dtype: Dtype) -> NDArray[np.float32]:
    """A copy in float32, in which each of them is exact."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)

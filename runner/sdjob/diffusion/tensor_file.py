"""Safetensors files read by their header and written in one canonical form, tensors copied as bytes whatever their dtype.

The safetensors library writes the metadata's entries in the order of a hash map that differs from process to process, so
equal weights would not be equal files. Here names and metadata are sorted, and a file of any size is copied in pieces.
Format: https://github.com/huggingface/safetensors#format
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sdjob.core.errors import DataError, UnsoundError

PIECE_BYTES = 16 * 2**20
LENGTH_BYTES = 8  # little-endian length of the JSON header
LFS_POINTER = b"version https://git-lfs"  # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
LARGEST_HEADER = 100_000_000  # the library's own limit


@dataclass(frozen=True)
class Span:
    """Where a tensor's bytes stand."""

    path: Path
    offset: int


@dataclass(frozen=True)
class StoredTensor:
    dtype: str
    """As safetensors names it: F32, F16, BF16, ..."""

    shape: tuple[int, ...]
    size_bytes: int
    content: "Span | bytes | tuple[StoredTensor, ...]"
    """A tuple: its rows, from the first on, as they stand in several places."""

    def pieces(self) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            yield self.content
            return
        if isinstance(self.content, tuple):
            for part in self.content:
                yield from part.pieces()
            return
        with self.content.path.open("rb") as stream:
            stream.seek(self.content.offset)
            left = self.size_bytes
            while left:
                yield (piece := exactly(stream, min(left, PIECE_BYTES), path=self.content.path))
                left -= len(piece)

    def rows(self, start: int, stop: int) -> "StoredTensor":
        """A part along its first dimension; nothing is read."""
        row_bytes = self.size_bytes // max(1, self.shape[0])
        first, size_bytes = start * row_bytes, (stop - start) * row_bytes
        match self.content:
            case bytes():
                content: Span | bytes | tuple[StoredTensor, ...] = self.content[first : first + size_bytes]
            case Span():
                content = Span(self.content.path, self.content.offset + first)
            case parts:
                content = tuple(_rows_of_parts(parts, start, stop))
        return StoredTensor(self.dtype, (stop - start, *self.shape[1:]), size_bytes, content)


def _rows_of_parts(parts: tuple[StoredTensor, ...], start: int, stop: int) -> Iterator[StoredTensor]:
    above = 0
    for part in parts:
        first, last = max(start - above, 0), min(stop - above, part.shape[0])
        if first < last:
            yield part.rows(first, last)
        above += part.shape[0]


def exactly(stream: BinaryIO, size_bytes: int, *, path: Path) -> bytes:
    data = stream.read(size_bytes)
    if len(data) != size_bytes:
        raise UnsoundError(f"the safetensors file ends {size_bytes - len(data)} bytes early", where=str(path))
    return data


def scalar(value: float) -> StoredTensor:
    """A float32 tensor of no dimensions."""
    return StoredTensor(dtype="F32", shape=(), size_bytes=4, content=struct.pack("<f", value))


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """(the JSON header, the offset of the first tensor's bytes)."""
    with path.open("rb") as stream:
        length = int.from_bytes(exactly(stream, LENGTH_BYTES, path=path), "little")
        if length > LARGEST_HEADER:
            raise UnsoundError(f"not a safetensors file: its header would be {length} bytes long", where=str(path))
        try:
            return json.loads(exactly(stream, length, path=path)), LENGTH_BYTES + length
        except ValueError as error:
            raise UnsoundError(f"not a safetensors file: its header is no JSON ({error})", where=str(path)) from error


def refuse_torn(path: Path, *, where: str) -> None:
    """DataError (65) where the file is not as long as its header says: it was cut short, or is something else. Cheap."""
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise DataError("is a pointer of Git LFS, not the file itself.", where=where, next_step="Run `git lfs pull` there.")
    try:
        header, start = read_header(path)
        stops = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        short = start + max(stops, default=0) - path.stat().st_size
        damage = f"it is {abs(short)} bytes {'shorter' if short > 0 else 'longer'} than its header says." if short else ""
    except (UnsoundError, AttributeError, LookupError, TypeError) as error:
        damage = f"{error.what}." if isinstance(error, UnsoundError) else "its header is not that of a safetensors file."
    if damage:
        raise DataError(damage, where=where, next_step="Copy or upload it again.")


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """The file's tensors by name; their bytes stay in the file until they are asked for."""
    header, start = read_header(path)
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            size_bytes=entry["data_offsets"][1] - entry["data_offsets"][0],
            content=Span(path, start + entry["data_offsets"][0]),
        )
        for name, entry in header.items()
    }


def header_bytes(tensors: Mapping[str, StoredTensor], *, metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name, tensor in sorted(tensors.items()):
        end = offset + tensor.size_bytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Spaces at the end of the header align the first tensor, as the format asks.
    return text + b" " * (-len(text) % LENGTH_BYTES)


def write_tensors(path: Path, *, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
    """Equal tensors and metadata give equal bytes."""
    header = header_bytes(tensors, metadata=metadata)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(LENGTH_BYTES, "little"))
        stream.write(header)
        for _, tensor in sorted(tensors.items()):
            for piece in tensor.pieces():
                stream.write(piece)

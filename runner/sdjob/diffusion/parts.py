"""The tensors of a checkpoint's folder: each kind in one file, or in one file for each process that held a part of them.

`weights.safetensors`, or `weights-00001-of-00002.safetensors` and its like: under the same names these hold the rows of each
tensor (along its first dimension) one after the other, so that any number of processes of either backend can go on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from sdjob.core.errors import UnsoundError
from sdjob.diffusion.tensor_file import StoredTensor, read_tensors

Kind = Literal["weights", "optimizer", "ema"]


def whole_file(kind: Kind) -> str:
    return f"{kind}.safetensors"


def part_file(kind: Kind, *, rank: int, of: int) -> str:
    return f"{kind}-{rank + 1:05d}-of-{of:05d}.safetensors"


def has_tensors(folder: Path, kind: Kind) -> bool:
    return (folder / whole_file(kind)).is_file() or any(folder.glob(part_pattern(kind)))


def stored_tensors(folder: Path, kind: Kind) -> dict[str, StoredTensor]:
    """Whole, whoever wrote them; their bytes stay in the files. UnsoundError where a part is missing or does not fit."""
    whole = folder / whole_file(kind)
    if whole.is_file():
        return read_tensors(whole)
    names = sorted(path.name for path in folder.glob(part_pattern(kind)))
    wanted = [part_file(kind, rank=rank, of=len(names)) for rank in range(len(names))]
    if not names or names != wanted:
        found = ", ".join(names) or "nothing"
        raise UnsoundError(f"the checkpoint's {whole.name} is in parts that are not all there: {found}", where=str(folder))
    return joined([read_tensors(folder / name) for name in names], file=whole.name)


def part_pattern(kind: Kind) -> str:
    return f"{kind}-?????-of-?????.safetensors"


def joined(parts: Sequence[Mapping[str, StoredTensor]], *, file: str) -> dict[str, StoredTensor]:
    """Each tensor of all its rows, those of the first part on top."""
    tensors = {name: tuple(part[name] for part in parts if name in part) for name in sorted(set().union(*parts))}
    for name, of_parts in tensors.items():
        kinds = {(tensor.dtype, tensor.shape[1:]) for tensor in of_parts}
        if len(of_parts) != len(parts) or len(kinds) != 1 or not of_parts[0].shape:
            raise UnsoundError(f"the parts of the checkpoint's {file} do not fit together (such as {name})")
    return {name: of_all_rows(of_parts) for name, of_parts in tensors.items()}


def of_all_rows(parts: tuple[StoredTensor, ...]) -> StoredTensor:
    rows, size_bytes = sum(part.shape[0] for part in parts), sum(part.size_bytes for part in parts)
    return StoredTensor(parts[0].dtype, (rows, *parts[0].shape[1:]), size_bytes, parts)

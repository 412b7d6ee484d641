"""The scratch folder: whether it can be written, how much room it has, and whether it is memory in truth."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdjob.core.errors import StorageError
from sdjob.job.doctor.finding import Finding, failed, ok, warning
from sdjob.job.doctor.hardware import readable

CHECK = "scratch"
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs"}
FEW_BYTES = 10 * 2**30  # Stable Diffusion 1.5 is 4 GiB in float32, and a checkpoint of a full fine-tune is 10 GiB
FEW_INODES = 100_000
FETCHED = ("models", "data")  # folders of what earlier attempts have brought to this machine


def scratch(root: Path) -> Iterator[Finding]:
    folder = nearest_folder(root)
    yield writable(folder, root=root)
    yield room(folder)
    if file_system(folder) in MEMORY_FILE_SYSTEMS:
        yield warning(
            CHECK,
            f"{folder} is memory ({file_system(folder)}): what lies there counts against the memory limit.",
            next_step="Set SDJOB_SCRATCH or run.scratch to a folder on a disk.",
        )


def nearest_folder(root: Path) -> Path:
    """The root, or the folder that it would be made in."""
    return next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())


def writable(folder: Path, *, root: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"sdjob doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        what = f"cannot be written: {error.strerror}."
        return failed(CHECK, StorageError(what, where=str(folder), next_step="Set SDJOB_SCRATCH to a folder that can."))
    made = "" if folder == root.absolute() else f" ({folder} is there; the rest is made by the first run)"
    return ok(CHECK, f"{root} can be written{made}.")


def room(folder: Path) -> Finding:
    status = os.statvfs(folder)
    free_bytes = status.f_bavail * status.f_frsize
    told = f"{readable(free_bytes)} are free."
    if free_bytes < FEW_BYTES:
        return warning(CHECK, told, next_step="Base models and checkpoints take gigabytes: set SDJOB_SCRATCH to a larger disk.")
    # f_files is 0 where the file system has no fixed number of inodes (btrfs, some network disks).
    if status.f_files and status.f_favail < FEW_INODES:
        return warning(
            CHECK, f"{told} Only {status.f_favail} more files can be made.", next_step="Set SDJOB_SCRATCH to another disk."
        )
    return ok(CHECK, told)


def room_for(to_fetch: Mapping[str, int], *, root: Path) -> Iterator[Finding]:
    """What is to be brought to this machine against what scratch has left, or holds of it already."""
    needed = sum(to_fetch.values())
    if not needed:
        return
    status = os.statvfs(nearest_folder(root))
    free_bytes, held_bytes = status.f_bavail * status.f_frsize, sum(size_of(root / name) for name in FETCHED)
    parts = ", ".join(f"{field} {readable(size_bytes)}" for field, size_bytes in to_fetch.items())
    told = f"{readable(needed)} are to be fetched ({parts}), {readable(free_bytes)} are free"
    told += f", {readable(held_bytes)} were fetched before." if held_bytes else "."
    if free_bytes + held_bytes < needed:
        error = StorageError(
            told, where=str(root), next_step="Make room, or set run.scratch (or SDJOB_SCRATCH) to a larger disk."
        )
        yield failed(CHECK, error)
    else:
        yield ok(CHECK, told)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def file_system(folder: Path, *, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the mount that the folder lies on; the last one counts where several lie over each other."""
    best, kind = "", ""
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, point, found, *_ = line.split()
        point = point.replace("\\040", " ")
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind

"""Files of torch's cache as one: what is kept for the next attempt is verified and there as a whole, or not at all."""

import gzip
import hashlib
import io
import sys
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path


def pack(names: Iterable[str], *, of: Path, into: Path) -> str:
    """The name of the pack, as `job.compiled` wants names."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in names:
            tar.add(of / name, arcname=name)
    packed = gzip.compress(content.getvalue(), compresslevel=1, mtime=0)
    name = f"torch-{hashlib.sha256(packed).hexdigest()[:32]}-cache"
    (into / name).write_bytes(packed)
    return name


def unpack(path: Path, *, into: Path) -> set[str]:
    """The names of its files. The parent has verified it; of what is no whole pack all the same nothing is written."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        sys.stderr.write(f"{path} is no pack of programs, so they are compiled again: {error}\n")
        return set()
    with tarfile.open(fileobj=io.BytesIO(content), mode="r") as tar:
        tar.extractall(into, filter="data")
        return {member.name for member in tar if member.isfile()}

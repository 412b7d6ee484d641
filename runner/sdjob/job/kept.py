"""Copies, on scratch, of the checkpoint that was committed last: an attempt that finds them again need not download it.

They are links to files that are there anyway, in a folder by the commit's digest, and are hashed before they are used
(ckpt/blobs.py). A place that is a folder of this machine has none: it is as near as scratch.
"""

import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FOLDER = "kept"
UNNAMED = "new-"


@dataclass(frozen=True)
class Kept:
    root: Path

    def keep(self, snapshot: Path, *, digest: str) -> None:
        """In the place of what was kept before. Where links cannot be made nothing is kept: it is a cache."""
        unnamed = self.root / f"{UNNAMED}{secrets.token_hex(8)}"
        with suppress(OSError):
            unnamed.mkdir(parents=True)
            for file in snapshot.iterdir():
                os.link(file, unnamed / file.name)
            unnamed.rename(self.root / digest)
        self._drop_all_but(digest)

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def _drop_all_but(self, digest: str) -> None:
        with suppress(OSError):
            for folder in self.root.iterdir():
                if folder.name != digest:
                    shutil.rmtree(folder, ignore_errors=True)

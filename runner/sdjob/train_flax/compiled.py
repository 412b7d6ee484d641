"""What jax compiles: kept in the folder that the parent gives, and told it with the seconds that it took."""

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from sdjob.link import Link

# https://github.com/jax-ml/jax/blob/jax-v0.10.2/jax/_src/dispatch.py; reading from the cache counts as compiling.
DURATIONS = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
# The cache tells nobody which entry it read, except its own log.
CACHE_LOG, HIT = "jax._src.lru_cache", re.compile(r"hit for key: '([A-Za-z0-9_.-]+)'")


def use_folder(folder: Path) -> None:
    """Before anything is compiled. Small programs too: there are few, and each would be compiled again."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # XLA's own caches would make the folder's path a part of every name, and they are for GPUs.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


class Hits(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if match := HIT.search(record.getMessage()):
            self.names.add(f"{match[1]}-cache")

    def listen(self) -> None:
        log = logging.getLogger(CACHE_LOG)
        log.setLevel(logging.DEBUG)
        log.propagate = False
        log.addHandler(self)


@dataclass
class Compilation:
    folder: Path | None
    link: Link
    _seconds: float = 0.0
    _hits: Hits = field(default_factory=Hits)
    _before: set[str] = field(default_factory=set[str])
    _told: set[str] = field(default_factory=set[str])

    def begin(self) -> None:
        if self.folder is not None:
            use_folder(self.folder)
            self._before = self._names()
            self._hits.listen()
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)

    def tell(self) -> None:
        """Between two pieces of work of the training thread, which compiles: what the folder has then is whole.

        What was read is told too: it may have come from this machine, and the run's place may lack it.
        """
        if not self._seconds:
            return
        new, read = (sorted(names - self._told) for names in (self._names() - self._before, self._hits.names))
        self._told |= {*new, *read}
        self.link.send("compiled", seconds=round(self._seconds, 3), new=new, read=read)
        self._seconds = 0.0

    def _names(self) -> set[str]:
        return {path.name for path in self.folder.glob("*-cache")} if self.folder is not None else set()

    def _on_duration(self, event: str, duration_secs: float, **_: Any) -> None:
        if event in DURATIONS:
            self._seconds += duration_secs

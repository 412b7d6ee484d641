"""A machine on which data is gathered, for tests: its scratch, its log, and places of both kinds."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes.clock import FakeClock
from fakes.data_sets import Objects, write_objects
from fakes.memory_store import MemoryStore
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.data.gather import Pictures, gather
from sdjob.data.index import Index, ScanResult, scan
from sdjob.spec.data import DataSpec
from sdjob.spec.places import Place
from sdjob.spec.sources import data_sources
from sdjob.store.base import ObjectStore
from sdjob.store.local import LocalStore

BUCKET = Place("s3", "bucket", "data")


@dataclass
class Machine:
    scratch: Path
    stream: io.StringIO = field(default_factory=io.StringIO)

    def gather(
        self,
        source: MemoryStore | Path,
        *,
        index: Index | None = None,
        check_stop: Callable[[], None] = lambda: None,
        **data: Any,
    ) -> Pictures:
        place = Place("file", str(source)) if isinstance(source, Path) else BUCKET
        store: ObjectStore = LocalStore(source) if isinstance(source, Path) else source
        return gather(
            place,
            open_store=lambda _: store,
            data=data_sources(DataSpec(source=place.uri, **data))[0],
            scratch=self.scratch,
            index=index,
            check_stop=check_stop,
            log=Log(mode="json", stream=self.stream, secrets=()),
            backoff=Backoff(attempts=3, clock=FakeClock()),
        )

    def scan(self, source: MemoryStore | Path, **data: Any) -> ScanResult:
        pictures = self.gather(source, **data)
        return scan(pictures.folder, records=pictures.records, workers=0, max_samples=data.get("max_samples"))

    def seen(self, source: MemoryStore | Path, **data: Any) -> dict[str, tuple[bytes | None, tuple[str, ...]]]:
        """What is under each id, and its captions."""
        pictures = self.gather(source, **data)
        return {
            record.id: (path.read_bytes() if (path := pictures.folder / record.id).is_file() else None, record.captions)
            for record in pictures.records
        }

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == kind]


def placed(objects: Mapping[str, bytes], *, kind: str, folder: Path) -> MemoryStore | Path:
    """The objects in a bucket, or in a folder."""
    if kind == "bucket":
        return MemoryStore(dict(objects))
    write_objects(folder, objects)
    return folder


def fetched(store: MemoryStore) -> list[str]:
    """The keys that were downloaded, in order."""
    return [call.key for call in store.calls if call.method == "read_to"]


__all__ = ["BUCKET", "Machine", "Objects", "fetched", "placed"]

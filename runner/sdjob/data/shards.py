"""Data sets whose pictures are rows of files: Parquet, Arrow, webdataset shards, JSON and CSV tables.

A row's id is the file's key without its ending, a slash, and the row's number in the file, in nine digits from 0, or its name in
the shard; then the extension that the picture's bytes ask for: `data/train-00000-of-00002/000000017.jpg`.
"""

import os
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from sdjob.core.errors import StorageError
from sdjob.data.carrier import Carried, Carrier, one_ahead
from sdjob.data.layout import Layout, prefixes_of
from sdjob.data.records import Record
from sdjob.data.rows import Row, read_rows_of, referred_key
from sdjob.data.shelf import Kept, chunks_of, require_space
from sdjob.data.webdataset import Columns, check_columns, picture_and_captions, read_samples
from sdjob.spec.sources import DataSource

BATCH_ROWS = 64
Item = TypeVar("Item")


@dataclass(frozen=True)
class Shards:
    carrier: Carrier
    layout: Layout
    data: DataSource

    @cached_property
    def prefixes(self) -> dict[str, str]:
        """The folder of each file's ids, in the order of the ids."""
        return prefixes_of(self.layout.keys, where=self.carrier.source.place.uri)

    def records(self) -> Iterator[Record]:
        """In the order of their ids, each when its picture is on the shelf. A file is fetched, read and removed, one after the
        other; the next one is fetched meanwhile, except where few pictures are wanted."""
        if self.data.max_samples is None:
            self._require_space()
            prepared = one_ahead(self._prepared, self.prefixes, abandoned=self.carrier.abandoned)
        else:
            prepared = ((key, self._prepared(key)) for key in self.prefixes)
        with closing(prepared) as portions:
            for key, ready in portions:
                if isinstance(ready, Carried):
                    yield from (one.record for one in self._read(key, ready))
                else:
                    yield from ready

    def restore(self, ids: Collection[str]) -> None:
        """Brings what is needed for these pictures again; ids that the source does not have are left to the caller."""
        for key, prefix in self.prefixes.items():
            missing = {name for name in ids if name.startswith(f"{prefix}/")}
            if missing:
                with closing(self._read(key, self.carrier.fetch([key]))) as kept:
                    for one in kept:
                        missing.discard(one.record.id)
                        if not missing:
                            break

    def _prepared(self, key: str) -> list[Record] | Carried:
        noted = self.carrier.shelf.noted(key, check_stop=self.carrier.check_stop)
        return self.carrier.fetch([key]) if noted is None else noted

    def _read(self, key: str, carried: Carried) -> Generator[Kept]:
        """Notes the file as done after its last record; removes it in any case."""
        kept: list[Kept] = []
        name, path = self.carrier.source.where(key), carried.folder / key
        read = self._samples if self.layout.kind == "webdataset" else self._rows
        try:
            for one in read(key, path, name):
                kept.append(one)
                yield one
        except OSError as error:
            raise StorageError(f"cannot be read: {error.strerror}.", where=name) from error
        finally:
            self.carrier.drop(carried)
        self.carrier.shelf.note(key, kept, aside=self.carrier.aside)

    def _rows(self, key: str, path: Path, name: str) -> Iterator[Kept]:
        columns: dict[str, Any] = {"image_column": self.data.image_column, "caption_column": self.data.caption_column}
        for batch in _batches(read_rows_of(path, name=name, layout=self.layout, **columns)):
            self.carrier.check_stop()
            yield from self._kept_rows(batch, table=key)

    def _kept_rows(self, rows: Sequence[Row], *, table: str) -> list[Kept]:
        keys = self.carrier.source.infos
        referred = {
            row.number: referred_key(row.picture, table=table, keys=keys, where=row.where)
            for row in rows
            if isinstance(row.picture, str)
        }
        with self.carrier.files(list(dict.fromkeys(key for key in referred.values() if key is not None))) as carried:
            return [self._kept_row(row, key=referred.get(row.number), table=table, carried=carried) for row in rows]

    def _kept_row(self, row: Row, *, key: str | None, table: str, carried: Carried) -> Kept:
        stem = f"{self.prefixes[table]}/{row.name}"
        if isinstance(row.picture, bytes):
            name, sha256 = self.carrier.shelf.put(stem, [row.picture], aside=self.carrier.aside)
        elif key is not None and (carried.folder / key).is_file():
            with (carried.folder / key).open("rb") as file:
                name, sha256 = self.carrier.shelf.put(stem, chunks_of(file), aside=self.carrier.aside)
        else:
            name, sha256 = stem, None
        return Kept(Record(name, row.captions), sha256)

    def _samples(self, key: str, path: Path, name: str) -> Iterator[Kept]:
        columns = Columns(image=self.data.image_column, caption=self.data.caption_column)
        prefix = self.prefixes[key]

        def keep(stem: str, content: IO[bytes]) -> tuple[str, str]:
            self.carrier.check_stop()
            return self.carrier.shelf.put(f"{prefix}/{stem}", chunks_of(content), aside=self.carrier.aside)

        samples = read_samples(path, name=name, columns=columns, keep=keep)
        check_columns(samples, columns=columns, where=name)
        kept: list[Kept] = []
        for sample in samples:
            picture, captions = picture_and_captions(sample, columns=columns, where=name)
            ident, sha256 = picture or (f"{prefix}/{sample.safe_name}", None)
            kept.append(Kept(Record(ident, captions), sha256))
        yield from sorted(kept, key=lambda one: os.fsencode(one.record.id))

    def _require_space(self) -> None:
        source, shelf = self.carrier.source, self.carrier.shelf
        missing = [source.infos[key].size_bytes for key in self.layout.keys if not shelf.is_noted(key)]
        require_space(sum(missing), folder=self.carrier.aside)


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    return iter(lambda: list(islice(items, BATCH_ROWS)), [])

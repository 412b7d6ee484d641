"""An image folder in a bucket or on the Hub: pictures, metadata and caption files, each an object of its own.

A picture's id is its key, as it is its path in a folder on this machine; so both have the same index.
"""

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sdjob.data.carrier import Carried, Carrier, one_ahead
from sdjob.data.folder import Listing, listing_of
from sdjob.data.layout import Layout
from sdjob.data.metadata import one_line_captions
from sdjob.data.records import Record, captions_of_rows, ids_of
from sdjob.data.shelf import Kept, require_space
from sdjob.spec.sources import DataSource

RUN_PICTURES = 256  # fetched together, and noted down together


@dataclass(frozen=True)
class Loose:
    carrier: Carrier
    layout: Layout
    data: DataSource

    @cached_property
    def listing(self) -> Listing:
        return listing_of(list(self.carrier.source.infos), folder=self.carrier.aside)

    def records(self) -> Iterator[Record]:
        """In the order of their ids, each when its picture is on the shelf; a run of pictures at a time, the next of which is
        fetched meanwhile, except where few pictures are wanted."""
        captions = self._captions_of_rows()
        with self.carrier.named(Carried(self.carrier.aside, {})):
            ids = ids_of(self.listing, captions=captions, chosen=self.layout.has_picture)
        runs = [tuple(ids[start : start + RUN_PICTURES]) for start in range(0, len(ids), RUN_PICTURES)]

        def prepare(run: Sequence[str]) -> list[Record] | Carried:
            noted = self.carrier.shelf.noted(_portion(run), check_stop=self.carrier.check_stop)
            return self.carrier.fetch(self._keys_of(run, captions=captions)) if noted is None else noted

        if self.data.max_samples is None:
            self._require_space(runs)
            prepared = one_ahead(prepare, runs, abandoned=self.carrier.abandoned)
        else:
            prepared = ((run, prepare(run)) for run in runs)
        with closing(prepared) as portions:
            for run, ready in portions:
                yield from self._shelved(run, ready, captions=captions) if isinstance(ready, Carried) else ready

    def restore(self, ids: Collection[str]) -> None:
        """Brings these pictures again; ids that the source does not have are left to the caller."""
        there = [name for name in ids if name in self.carrier.source.infos]
        for start in range(0, len(there), RUN_PICTURES):
            run = there[start : start + RUN_PICTURES]
            with self.carrier.files(run) as carried:
                for name in run:
                    self.carrier.shelf.adopt(name, carried.folder / name)

    def _captions_of_rows(self) -> dict[str, tuple[str, ...]]:
        columns: dict[str, Any] = {"image_column": self.data.image_column, "caption_column": self.data.caption_column}
        with self.carrier.files(self.listing.metadata) as carried, self.carrier.named(carried):
            return captions_of_rows(self._listing_in(carried), **columns)

    def _listing_in(self, carried: Carried) -> Listing:
        listing = self.listing
        return Listing(carried.folder, listing.pictures, listing.metadata, listing.texts)

    def _text_beside(self, name: str, *, captions: Mapping[str, tuple[str, ...]]) -> str | None:
        """Metadata wins where both speak."""
        return None if captions.get(name) else self.listing.texts.get(posixpath.splitext(name)[0])

    def _keys_of(self, run: Sequence[str], *, captions: Mapping[str, tuple[str, ...]]) -> list[str]:
        """What must be fetched for a run: its pictures, those that are there, and their caption files."""
        texts = [text for name in run if (text := self._text_beside(name, captions=captions)) is not None]
        return list(dict.fromkeys([*(name for name in run if name in self.carrier.source.infos), *texts]))

    def _shelved(self, run: Sequence[str], carried: Carried, *, captions: Mapping[str, tuple[str, ...]]) -> list[Record]:
        kept: list[Kept] = []
        with self.carrier.named(carried):
            for name in run:
                text = self._text_beside(name, captions=captions)
                own = captions.get(name) or (one_line_captions(carried.folder / text) if text else ())
                if name in carried.hashes:
                    self.carrier.shelf.adopt(name, carried.folder / name)
                kept.append(Kept(Record(name, own), carried.hashes.get(name)))
        self.carrier.shelf.note(_portion(run), kept, aside=self.carrier.aside)
        self.carrier.drop(carried)
        return [one.record for one in kept]

    def _require_space(self, runs: Sequence[Sequence[str]]) -> None:
        infos = self.carrier.source.infos
        missing = [name for run in runs if not self.carrier.shelf.is_noted(_portion(run)) for name in run if name in infos]
        require_space(sum(infos[name].size_bytes for name in missing), folder=self.carrier.aside)


def _portion(run: Sequence[str]) -> str:
    return f"{run[0]}\0{len(run)}"

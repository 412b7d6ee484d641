"""Pictures of any place, on this machine: the one way in which a job comes to its data.

An image folder on this machine is used where it stands. All else is brought to scratch, portion by portion, as the scan asks for
records; so a job that wants few pictures fetches few, and scratch holds the pictures once.

Ids do not depend on where the data lies: of an image folder a picture's path below the place, else what `shards` says. Records
are in the order of the bytes of their ids. The same data in a folder, a bucket or a repository therefore has the same index.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdjob.core.errors import DataError, MissingError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.data.carrier import Carrier
from sdjob.data.catalog import CARD, catalogued, declares_configs
from sdjob.data.entries import Entry
from sdjob.data.folder import METADATA_NAMES, extension_of, listing_of
from sdjob.data.index import Index
from sdjob.data.layout import Layout, kind_of_file, kind_of_place, split_folders
from sdjob.data.loose import Loose
from sdjob.data.reading import FileGoneError, read_bytes
from sdjob.data.records import Record, records_of
from sdjob.data.saved import saved_layout
from sdjob.data.shards import Shards
from sdjob.data.shelf import Shelf, aside_folder, shelves
from sdjob.data.source import Source, fingerprint_of, look_at
from sdjob.spec.places import Place
from sdjob.spec.sources import DataSource
from sdjob.store.base import ObjectInfo, ObjectStore

LOOKED_AT = 8
FORMAT = 1  # raised when ids or what lies on the shelf are made in another way
NAMED = 5  # as many missing pictures are named in a message


@dataclass(frozen=True)
class Pictures:
    folder: Path
    """What the trainer reads: folder / id."""

    records: Iterable[Record]
    """In the order of their ids. Taking one may fetch its picture, so that errors of the place come while they are taken."""


@dataclass(frozen=True)
class Lazily:
    """Records that are made anew for everyone who goes through them; what was fetched before is not fetched again."""

    make: Callable[[], Iterator[Record]]

    def __iter__(self) -> Iterator[Record]:
        return self.make()


def gather(
    place: Place,
    *,
    open_store: Callable[[Place], ObjectStore],
    data: DataSource,
    scratch: Path,
    index: Index | None,
    check_stop: Callable[[], None],
    log: Log,
    backoff: Backoff | None = None,
) -> Pictures:
    """The pictures of `place`. `scratch` is this machine's, shared by attempts and jobs; a Hub place names its commit.

    Without `index` (the first attempt) they come as `records` is gone through. With it (a later one) all that it names are there
    on return, every byte verified; one that the place no longer has is MissingError (66), one that differs DataError (65). Of a
    folder that is used where it stands each picture is verified when it is trained on instead.

    Raises MissingError for a place, split or configuration that is not there, UsageError for a configuration that must be
    chosen, DataError for data that cannot be used, UnavailableError for a package that is missing, StorageError where scratch
    is full or the place fails after all retries.
    """
    root = scratch / "data"
    own = root / _source_key(place, data)
    if index is not None and (shelf := _full_shelf(own, index=index, check_stop=check_stop)) is not None:
        return _of_index(shelf.pictures, index)
    if index is not None and place.scheme == "file" and _lies_in(place.path, index=index):
        return _of_index(place.path, index)
    source = look_at(place, store=open_store(place), backoff=backoff or Backoff())
    layout = layout_of(source, data=data, root=root, log=log)
    if layout.kind == "pictures" and place.scheme == "file":
        return _in_place(source, layout=layout, data=data, index=index)
    shelf = Shelf(own / fingerprint_of(_decisive(source, layout))[:32])

    def portions(aside: Path) -> Loose | Shards:
        carrier = Carrier(source, shelf, aside, check_stop, log)
        return (Loose if layout.kind == "pictures" else Shards)(carrier, layout, data)

    def records() -> Iterator[Record]:
        log.event("gather", f"gathering pictures from {place.uri} ({layout.kind})", files=len(layout.keys))
        with aside_folder(root) as aside:
            yield from portions(aside).records()

    if index is None:
        return Pictures(shelf.pictures, Lazily(records))
    with aside_folder(root) as aside:
        missing = list(_missing(shelf, index=index, check_stop=check_stop))
        portions(aside).restore([entry.id for entry in missing])
    _require_all(shelf, missing, where=place.uri)
    return _of_index(shelf.pictures, index)


def layout_of(source: Source, *, data: DataSource, root: Path, log: Log) -> Layout:
    """The files of the configuration and the split. A plain image folder has no configurations, and is one split, `train`,
    unless its top folders are called like several."""
    where = source.place.uri
    if (saved := saved_layout(source, split=data.split)) is not None:
        _refuse_config(data, where=where)
        return saved
    if declares_configs(source.note(CARD)):
        with aside_folder(root) as folder:
            return catalogued(source, keys=list(source.infos), data=data, folder=folder)
    kind = kind_of_place(source.infos, where=where)
    keys = [key for key in source.infos if kind_of_file(key) == kind]
    if kind != "pictures":
        with aside_folder(root) as folder:
            return catalogued(source, keys=keys, data=data, folder=folder)
    _refuse_config(data, where=where)
    folders = split_folders(keys, split=data.split, where=where)
    if folders is not None:
        log.event("split", f"the folders of {where} are splits: pictures of {data.split!r} are in {', '.join(folders)}")
    return Layout("pictures", tuple(keys), folders=("",) if folders is None else folders)


def _refuse_config(data: DataSource, *, where: str) -> None:
    if data.config not in {None, "default"}:
        raise MissingError(
            f"has no configuration {data.config!r}; it has none at all.", where=where, next_step="Take data.config out."
        )


def _in_place(source: Source, *, layout: Layout, data: DataSource, index: Index | None) -> Pictures:
    folder = source.place.path
    if index is not None:
        return _of_index(folder, index)
    listing = listing_of(list(source.infos), folder=folder)
    columns: dict[str, Any] = {"image_column": data.image_column, "caption_column": data.caption_column}
    return Pictures(folder, records_of(listing, **columns, chosen=layout.has_picture))


def _of_index(folder: Path, index: Index) -> Pictures:
    return Pictures(folder, Lazily(lambda: (Record(entry.id, entry.captions) for entry in index.entries)))


def _lies_in(folder: Path, *, index: Index) -> bool:
    """Whether a folder is used where it stands, seen by some of the index's pictures: to list a million files takes longer than
    all the rest of a start, over a network minutes. All others are verified when they are trained on, as ever."""
    numbers = range(0, len(index), max(1, len(index) // LOOKED_AT))
    return all(_has(folder, entry=index.entries[number]) for number in numbers)


def _has(folder: Path, *, entry: Entry) -> bool:
    try:
        return hashlib.sha256(read_bytes(folder / entry.id)).hexdigest() == entry.sha256
    except FileGoneError:
        return False


def _source_key(place: Place, data: DataSource) -> str:
    """Of all that decides which pictures are taken, and under which ids."""
    choice = [FORMAT, place.uri, data.config, data.split, data.image_column, data.caption_column]
    return hashlib.sha256(json.dumps(choice).encode()).hexdigest()[:32]


def _decisive(source: Source, layout: Layout) -> list[ObjectInfo]:
    """The files on which pictures or captions may depend: the layout's own, and whatever lies about that rows may name."""
    chosen = set(layout.keys)
    if layout.kind not in {"webdataset"}:
        chosen |= {key for key in source.infos if kind_of_file(key) == "pictures"}
    if layout.kind == "pictures":
        chosen |= {key for key in source.infos if _holds_captions(key)}
    return [info for key, info in source.infos.items() if key in chosen]


def _holds_captions(key: str) -> bool:
    return extension_of(key) == ".txt" or key.rpartition("/")[2].lower() in METADATA_NAMES


def _full_shelf(own: Path, *, index: Index, check_stop: Callable[[], None]) -> Shelf | None:
    """A shelf on which the whole index lies, whatever the place has become since; asks nothing of the place."""

    def has_all(shelf: Shelf) -> bool:
        return not any(True for _ in _missing(shelf, index=index, check_stop=check_stop))

    return next((shelf for shelf in shelves(own) if has_all(shelf)), None)


def _missing(shelf: Shelf, *, index: Index, check_stop: Callable[[], None]) -> Iterator[Entry]:
    for entry in index.entries:
        check_stop()
        if not shelf.holds(entry.id, sha256=entry.sha256):
            yield entry


def _require_all(shelf: Shelf, entries: list[Entry], *, where: str) -> None:
    gone = [entry.id for entry in entries if not (shelf.pictures / entry.id).exists()]
    if gone:
        raise MissingError(
            f"no longer has {len(gone)} pictures of the run: {_some(gone)}.",
            where=where,
            next_step="Put them back as they were, or start a new run without them.",
        )
    changed = [entry.id for entry in entries if not shelf.holds(entry.id, sha256=entry.sha256)]
    if changed:
        raise DataError(
            f"has other pictures than the run began with: {_some(changed)}.",
            where=where,
            next_step="Put the old files back, or start a new run with the new ones.",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")

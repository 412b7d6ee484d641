"""How the files of a data set lie: a folder of pictures, or shards and tables whose rows are pictures. Pure, by names alone."""

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Literal

from sdjob.core.errors import DataError, MissingError
from sdjob.data.folder import METADATA_NAMES, PICTURE_EXTENSIONS, extension_of

Kind = Literal["pictures", "parquet", "arrow", "webdataset", "table"]
# Best first, where a place has as many of one kind as of another.
SHARD_ENDINGS: dict[str, Kind] = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset", ".tar.gz": "webdataset"}
TABLE_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
# What lies beside data and is none: https://huggingface.co/docs/datasets/repository_structure, and data_files.py of `datasets`
NO_DATA = frozenset({"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
# The words by which `datasets` knows a split in a folder's name (SPLIT_KEYWORDS in its data_files.py).
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Layout:
    kind: Kind
    keys: tuple[str, ...]
    """The files of the split that was asked for: shards, tables or pictures."""

    options: dict[str, str] = field(default_factory=dict)
    """Of tables: the delimiter of CSV, the field of JSON, where the data card names them."""

    folders: tuple[str, ...] | None = ("",)
    """Of pictures: the ids of the split begin with one of these, as `train/`; None: they are `keys` alone."""

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.keys)

    def has_picture(self, name: str) -> bool:
        """Whether a picture of this name, which may be missing, is of the split."""
        return name in self._known if self.folders is None else name.startswith(self.folders)


def kind_of_file(key: str) -> Kind | None:
    name = posixpath.basename(key).lower()
    if name in METADATA_NAMES or name in NO_DATA:
        return None
    if extension_of(key) in PICTURE_EXTENSIONS:
        return "pictures"
    for ending, kind in SHARD_ENDINGS.items():
        if name.endswith(ending):
            return kind
    return "table" if name.endswith(TABLE_ENDINGS) else None


def kind_of_place(keys: Iterable[str], *, where: str) -> Kind:
    """What the files are together. Pictures with captions beside them, in metadata or in NAME.txt, are an image folder, even
    where other files lie about; else shards, then tables, win over pictures, which their rows may name.

    Raises DataError, with what to do, where nothing can be trained on.
    """
    keys = list(keys)
    pictures = {posixpath.splitext(key)[0] for key in keys if kind_of_file(key) == "pictures"}
    captions = {posixpath.splitext(key)[0] for key in keys if extension_of(key) == ".txt"}
    has_metadata = any(posixpath.basename(key).lower() in METADATA_NAMES for key in keys)
    shards = [kind for kind in map(kind_of_file, keys) if kind in SHARD_ENDINGS.values()]
    if pictures and (has_metadata or len(pictures & captions) > len(shards)):
        return "pictures"
    if shards:
        return max(SHARD_ENDINGS.values(), key=Counter(shards).__getitem__)
    if has_metadata:
        return "pictures"
    if any(kind_of_file(key) == "table" and posixpath.splitext(key)[0] not in pictures for key in keys):
        return "table"
    if pictures:
        return "pictures"
    raise nothing_to_train_on(keys, where=where)


def nothing_to_train_on(keys: Sequence[str], *, where: str) -> DataError:
    forms = "An image folder has pictures, and metadata.jsonl, metadata.csv or NAME.txt beside NAME.png."
    endings = {extension_of(key) for key in keys}
    if ".zip" in endings:
        return DataError("holds its data in zip files, which are not read.", where=where, next_step="Unpack them there.")
    if ".py" in endings:
        return DataError(
            "is a data set that only its own script can read, and code from a data set is never run.",
            where=where,
            next_step="Give a data set in Parquet files, or write one with `Dataset.to_parquet`.",
        )
    return DataError("holds no pictures.", where=where, next_step=f"{forms} Parquet, Arrow, tar, JSON and CSV are read too.")


def split_folders(pictures: Iterable[str], *, split: str, where: str) -> tuple[str, ...] | None:
    """The top-level folders of a split, as `train/`; None where all of an image folder is one split, which is called train.

    Folders are splits where there are two of them with names of different splits: a lone `test/` may be anything.
    """
    tops = {key.partition("/")[0] for key in pictures if "/" in key}
    folders = {name: tuple(f"{word}/" for word in words if word in tops) for name, words in SPLIT_WORDS.items()}
    there = {name: found for name, found in folders.items() if found}
    if len(there) < 2:
        if split != "train":
            raise no_split(split, there=["train"], where=where)
        return None
    if split not in there:
        raise no_split(split, there=list(there), where=where)
    return there[split]


def no_split(split: str, *, there: Iterable[str], where: str) -> MissingError:
    names = ", ".join(map(repr, there))
    return MissingError(f"has no split {split!r}; its splits are {names}.", where=where, next_step="Set data.split.")


def prefixes_of(keys: Sequence[str], *, where: str) -> dict[str, str]:
    """Below which folder the rows of each file have their ids: the file's key without its endings.

    Whole keys are taken where that would give two files one folder, or one a folder inside another's: then no order of ids
    within a file could be the order over all of them. In the order of the ids.
    """
    for named in ({key: _without_ending(key) for key in keys}, {key: key for key in keys}):
        ordered = dict(sorted(named.items(), key=lambda item: os.fsencode(f"{item[1]}/")))
        folders = [f"{folder}/" for folder in ordered.values()]
        if not any(later.startswith(earlier) for earlier, later in pairwise(folders)):
            return ordered
    raise DataError("holds a file whose name is the folder of another file.", where=where, next_step="Rename one of them.")


def _without_ending(key: str) -> str:
    folder, name = posixpath.split(key)
    endings = (*SHARD_ENDINGS, *TABLE_ENDINGS)
    ending = max((ending for ending in endings if name.lower().endswith(ending)), key=len, default="")
    return posixpath.join(folder, name[: len(name) - len(ending)] or name)

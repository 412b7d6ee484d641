"""Which encodings a job needs, in which shards: a pure function of the index, the data's part of the job and the encoders' files.

A shard holds entries that follow each other in the index, of one shape and one encoder, and its name is a hash of what they are
made of: the content of pictures and captions, their windows, the encoder's files, the precision. So another job with the same
data finds the same names. Numbers are what is kept of the pictures and captions, so that a plan costs some bytes of each.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sdjob.core.errors import UsageError
from sdjob.data.buckets import TargetSize
from sdjob.data.entries import Entry
from sdjob.data.index import Index
from sdjob.data.targets import settled_crop, target_size
from sdjob.spec.data import DataSpec
from sdjob.spec.job import JobSpec

FORMAT = 1
SHARD_ENTRIES = 64  # of a few hundred KiB each: soon computed, and few enough objects for millions of pictures
CAPTION_BATCH = 16
# A batch is as many pictures as have together a megapixel, four of 512 px: a VAE in float32 needs some GiB for that.
BATCH_PIXELS, LARGEST_BATCH = 2**20, 8
EMPTY = ""

Kind = Literal["pictures", "captions"]
ENCODER_PARTS: dict[Kind, tuple[str, ...]] = {"pictures": ("vae",), "captions": ("text_encoder", "tokenizer", "model_index.json")}
# The index says what an empty caption is to SDXL.


@dataclass(frozen=True)
class Group:
    """Entries that one encoder takes in batches of one shape."""

    kind: Kind
    key: str
    """Of what all its entries have in common."""

    batch: int
    """As many are encoded at once, the last ones repeated to fill it: so an entry's bits do not depend on how many there are."""

    members_E: NDArray[np.int64]
    """Numbers of pictures in the index, or of captions."""

    target: TargetSize | None = None
    flipped: bool = False

    @property
    def num_shards(self) -> int:
        return -(-len(self.members_E) // SHARD_ENTRIES)


@dataclass(frozen=True)
class Shard:
    group: Group
    number: int
    """In its group."""

    name: str

    @property
    def members(self) -> list[int]:
        return self.group.members_E[self.number * SHARD_ENTRIES : (self.number + 1) * SHARD_ENTRIES].tolist()


@dataclass(frozen=True)
class CaptionNumbers:
    """Which of the distinct captions is a picture's so-and-so-manieth one."""

    first_N: NDArray[np.int64]
    """Where a picture's captions begin in `numbers`."""

    numbers: NDArray[np.int32]

    def of(self, picture: int, *, choice: int | None) -> int:
        """None: the empty caption, which is the first of all."""
        return 0 if choice is None else int(self.numbers[self.first_N[picture] + choice])


@dataclass(frozen=True)
class Plan:
    groups: tuple[Group, ...]
    shards: tuple[Shard, ...]
    """Group after group."""

    captions: CaptionNumbers | None
    """None where the text encoder is trained: what it makes of a caption is another thing at each step."""

    def of_group(self, group: Group) -> Iterator[Shard]:
        return (shard for shard in self.shards if shard.group is group)


def runs_once(job: JobSpec, *, index: Index) -> bool:
    """Whether the encoders run once: where every picture has one window. UsageError where they must and cannot."""
    if job.train.cache == "never":
        return False
    once = all(settled_crop(entry, data=job.data) is not None for entry in index.entries)
    if job.train.cache == "always" and not (once and encodes_captions(job)):
        raise UsageError(
            "always cannot be held to: some pictures or captions are not the same at every step.",
            where="train.cache",
            next_step="Set train.cache: auto, or never.",
        )
    return once


def encodes_captions(job: JobSpec) -> bool:
    """Beside the pictures: a text encoder that is trained runs at every step."""
    return job.train.text_encoder == "frozen"


def make_plan(index: Index, *, job: JobSpec, model_hashes: Mapping[str, str]) -> Plan:
    """`job` has a precision, no longer auto; `model_hashes` are those of the model's files by their paths in its folder."""
    keys = {kind: encoder_key(kind, job=job, model_hashes=model_hashes) for kind in ENCODER_PARTS}
    captions = distinct_captions(index) if encodes_captions(job) else {}
    groups = [*picture_groups(index, data=job.data, key=keys["pictures"])]
    if captions:
        groups.append(caption_group(len(captions), key=keys["captions"]))
    shards = [shard for group in groups for shard in shards_of(group, index=index, captions=captions, data=job.data)]
    return Plan(tuple(groups), tuple(shards), caption_numbers(index, captions=captions) if captions else None)


def encoder_key(kind: Kind, *, job: JobSpec, model_hashes: Mapping[str, str]) -> str:
    parts = ENCODER_PARTS[kind]
    # A family's second text encoder is text_encoder_2, beside tokenizer_2.
    files = {name: sha256 for name, sha256 in model_hashes.items() if name.startswith(parts)}
    return hash_of([FORMAT, kind, sorted(files.items()), job.train.precision])


def hash_of(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()[:32]


# ---- pictures --------------------------------------------------------------------------------------------------------------


def picture_groups(index: Index, *, data: DataSpec, key: str) -> Iterator[Group]:
    numbers: dict[TargetSize, list[int]] = {}
    for number, entry in enumerate(index.entries):
        numbers.setdefault(target_size(entry, data=data), []).append(number)
    for target, members in sorted(numbers.items(), key=lambda item: (item[0].width, item[0].height)):
        members_E = np.array(members, np.int64)
        batch = max(1, min(LARGEST_BATCH, BATCH_PIXELS // (target.width * target.height)))
        for flipped in (False, True) if data.flip else (False,):
            own = hash_of([key, target.width, target.height, flipped])
            yield Group("pictures", own, batch, members_E, target=target, flipped=flipped)


def picture_content(entry: Entry, *, data: DataSpec) -> list[object]:
    crop = settled_crop(entry, data=data)
    assert crop is not None, "a picture that has no one window is not encoded beforehand"
    return [entry.sha256, crop.scaled_width, crop.scaled_height, crop.left, crop.top]


# ---- captions --------------------------------------------------------------------------------------------------------------


def distinct_captions(index: Index) -> dict[str, int]:
    """Every caption's number, in the order in which they first appear; the empty one, which dropped captions are, before all."""
    numbers = {EMPTY: 0}
    for entry in index.entries:
        for caption in entry.captions:
            numbers.setdefault(caption, len(numbers))
    return numbers


def caption_group(num_captions: int, *, key: str) -> Group:
    return Group("captions", key, CAPTION_BATCH, np.arange(num_captions))


def caption_numbers(index: Index, *, captions: Mapping[str, int]) -> CaptionNumbers:
    counts = [len(entry.captions) for entry in index.entries]
    numbers = (captions[caption] for entry in index.entries for caption in entry.captions)
    first_N = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return CaptionNumbers(first_N, np.fromiter(numbers, np.int32, count=sum(counts)))


# ---- shards ----------------------------------------------------------------------------------------------------------------


def shards_of(group: Group, *, index: Index, captions: Mapping[str, int], data: DataSpec) -> Iterator[Shard]:
    texts = list(captions) if group.kind == "captions" else []
    for number in range(group.num_shards):
        shard = Shard(group, number, "")
        content = [texts[m] if texts else picture_content(index.entries[m], data=data) for m in shard.members]
        yield Shard(group, number, hash_of([group.key, content]))


def share_of(shards: Sequence[Shard], *, node: int, nodes: int) -> list[Shard]:
    """What a node of a gang computes of a plan's shards."""
    return list(shards[node::nodes])

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
from sdjob.data.batch_order import pictures_by_size
from sdjob.data.buckets import TargetSize
from sdjob.data.captions import Captions, captions_of
from sdjob.data.crops import center_crops
from sdjob.data.index import Index
from sdjob.data.targets import all_settled
from sdjob.spec.data import DataSpec
from sdjob.spec.job import JobSpec

FORMAT = 1
SHARD_ENTRIES = 64  # of a few hundred KiB each: soon computed, and few enough objects for millions of pictures
CAPTION_BATCH = 16
# A batch is as many pictures as have together a megapixel, four of 512 px: a VAE in float32 needs some GiB for that.
BATCH_PIXELS, LARGEST_BATCH = 2**20, 8
SHARDS_AT_ONCE = 64  # are named together: so many entries' hashes or captions are in memory

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
    """Numbers of pictures in the index, or of captions; each larger than the one before."""

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
    def members_E(self) -> NDArray[np.int64]:
        return self.group.members_E[self.number * SHARD_ENTRIES : (self.number + 1) * SHARD_ENTRIES]


@dataclass(frozen=True)
class Plan:
    groups: tuple[Group, ...]
    shards: tuple[Shard, ...]
    """Group after group."""

    captions: Captions | None
    """None where the text encoder is trained: what it makes of a caption is another thing at each step."""

    def of_group(self, group: Group) -> Iterator[Shard]:
        return (shard for shard in self.shards if shard.group is group)


def runs_once(job: JobSpec, *, index: Index) -> bool:
    """Whether the encoders run once: where every picture has one window. UsageError where they must and cannot."""
    if job.train.cache == "never":
        return False
    once = all(
        all_settled(index.widths[numbers], index.heights[numbers], target=target, data=job.data)
        for target, numbers in pictures_by_size(index, data=job.data).items()
    )
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
    captions = captions_of(index.lines) if encodes_captions(job) else None
    groups = [*picture_groups(index, data=job.data, key=keys["pictures"])]
    if captions:
        groups.append(caption_group(len(captions), key=keys["captions"]))
    shards = (shard for group in groups for shard in shards_of(group, index=index, captions=captions))
    return Plan(tuple(groups), tuple(shards), captions)


def encoder_key(kind: Kind, *, job: JobSpec, model_hashes: Mapping[str, str]) -> str:
    parts = ENCODER_PARTS[kind]
    # A family's second text encoder is text_encoder_2, beside tokenizer_2.
    files = {name: sha256 for name, sha256 in model_hashes.items() if name.startswith(parts)}
    return hash_of([FORMAT, kind, sorted(files.items()), job.train.precision])


def hash_of(content: object) -> str:
    return hash_of_text(json.dumps(content, ensure_ascii=True))


def hash_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# ---- pictures --------------------------------------------------------------------------------------------------------------


def picture_groups(index: Index, *, data: DataSpec, key: str) -> Iterator[Group]:
    by_size = pictures_by_size(index, data=data)
    for target in sorted(by_size):
        batch = max(1, min(LARGEST_BATCH, BATCH_PIXELS // (target.width * target.height)))
        for flipped in (False, True) if data.flip else (False,):
            own = hash_of([key, target.width, target.height, flipped])
            yield Group("pictures", own, batch, by_size[target], target=target, flipped=flipped)


def spelled_pictures(index: Index, numbers_E: NDArray[np.int64], *, target: TargetSize) -> list[str]:
    """Which picture each is, and which window, as JSON has it: the encoder itself takes as long as all the rest."""
    widths, heights = index.widths[numbers_E], index.heights[numbers_E]
    windows = center_crops(widths, heights, target_width=target.width, target_height=target.height)
    rows = zip(index.lines.hashes(numbers_E), *(side.tolist() for side in windows), strict=True)
    return ['["%s", %d, %d, %d, %d]' % row for row in rows]  # noqa: UP031 - of a tuple it is the fastest


# ---- captions --------------------------------------------------------------------------------------------------------------


def caption_group(num_captions: int, *, key: str) -> Group:
    return Group("captions", key, CAPTION_BATCH, np.arange(num_captions))


# ---- shards ----------------------------------------------------------------------------------------------------------------


def shards_of(group: Group, *, index: Index, captions: Captions | None) -> Iterator[Shard]:
    for first in range(0, group.num_shards, SHARDS_AT_ONCE):
        members_E = group.members_E[first * SHARD_ENTRIES : (first + SHARDS_AT_ONCE) * SHARD_ENTRIES]
        if group.target is not None:
            spelled = spelled_pictures(index, members_E, target=group.target)
        else:
            assert captions is not None, "else there is no group of them"
            spelled = captions.spelled(members_E)
        for number, begin in enumerate(range(0, len(spelled), SHARD_ENTRIES), start=first):
            entries = ", ".join(spelled[begin : begin + SHARD_ENTRIES])
            yield Shard(group, number, hash_of_text(f'["{group.key}", [{entries}]]'))


def share_of(shards: Sequence[Shard], *, node: int, nodes: int) -> list[Shard]:
    """What a node of a gang computes of a plan's shards."""
    return list(shards[node::nodes])

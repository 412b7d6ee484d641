"""Opening a cache costs some bytes of a picture, and reading from it none that stay: files are mapped, a few at a time."""

import tracemalloc

import numpy as np
import pytest

from fakes.encoded import made_up_index, plan_of
from sdjob.data.buckets import TargetSize
from sdjob.encodings.reader import OPEN_SHARDS, Encodings, mapped_lately
from sdjob.encodings.shard import Rows, write_shard

NUM_PICTURES = 6400
ENTRY_BYTES = 2 * 4 * 64 * 64 * 4  # the moments of a picture of 512 px
BYTES_A_PICTURE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every shard is a link to one of two files: content does not matter here, and their number does."""
    folder = tmp_path_factory.mktemp("encodings")
    zeros = {name: Rows("F32", np.zeros((64, 4, 64, 64), np.float32)) for name in ("mean_CHW", "log_variance_CHW")}
    states = {"states_TD": Rows("F32", np.zeros((64, 77, 8), np.float32))}
    files = {kind: write_shard(rows, name="0" * 32, folder=folder, aside=folder) for kind, rows in
             (("pictures", zeros), ("captions", states))}  # fmt: skip
    for shard in plan_of(made_up_index(NUM_PICTURES)).shards:
        source = folder / files[shard.group.kind].file_name
        (folder / f"{shard.name}.{'0' * 64}.safetensors").hardlink_to(source)
    return folder


def traced(action):
    """(bytes that stay, what it returned)"""
    tracemalloc.start()
    result = action()
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return kept_bytes, result


def opened(folder, *, num_pictures):
    plan = plan_of(made_up_index(num_pictures))
    table = {shard.name: "0" * 64 for shard in plan.shards}
    return traced(lambda: Encodings.of(plan, folder=folder, sha256_by_shard=table))


def test_memory_does_not_grow_with_what_is_read(folder):
    few_bytes, _ = opened(folder, num_pictures=NUM_PICTURES // 10)
    many_bytes, encodings = opened(folder, num_pictures=NUM_PICTURES)
    assert (many_bytes - few_bytes) / (0.9 * NUM_PICTURES) < BYTES_A_PICTURE < ENTRY_BYTES / 1000

    def read_all():
        for number in range(NUM_PICTURES):
            encodings.picture(number, target=TargetSize(64, 64), flipped=False)
            encodings.caption(number, choice=0)

    kept_bytes, _ = traced(read_all)
    assert kept_bytes < 10 * ENTRY_BYTES  # of 6,400 entries, 839 MB in all
    assert mapped_lately.cache_info().currsize <= OPEN_SHARDS

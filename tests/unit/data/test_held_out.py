"""The held-out pictures as batches: each at each level once, and the same ones every time."""

from collections import Counter

import numpy as np
import pytest

from fakes.pictures import write_picture_folder
from sdjob.data.buckets import TargetSize
from sdjob.data.held_out import HeldOutOrder, HeldOutSource, held_out_order
from sdjob.data.index import scan
from sdjob.data.records import list_records
from sdjob.data.roles import roles_of
from sdjob.data.samples import SampleSource
from sdjob.spec.data import DataSpec

WIDE, HIGH = TargetSize(128, 64), TargetSize(64, 128)


@pytest.mark.parametrize("global_batch", [1, 2, 4, 5, 100])
def test_every_picture_stands_at_every_level_once(global_batch):
    order = HeldOutOrder({WIDE: np.array([4, 7, 9]), HIGH: np.array([2])}, num_levels=2, global_batch=global_batch)
    rows = [(order.size(step), order.row(step, place)) for step in range(order.num_batches) for place in range(global_batch)]
    counted = Counter((size, row.picture, row.level) for size, row in rows if row.counts)
    wanted = [(size, picture, level) for size, picture in ((WIDE, 4), (WIDE, 7), (WIDE, 9), (HIGH, 2)) for level in range(2)]
    assert counted == Counter(wanted)
    assert order.num_rows == len(wanted)
    assert all(row.picture in order.pools[size] for size, row in rows), "what fills a batch up has its size"
    assert order.num_batches == -(-6 // global_batch) + -(-2 // global_batch)


@pytest.fixture
def sources(tmp_path):
    """(of what is trained on, of what is held out), with every draw that there is."""
    write_picture_folder(tmp_path, count=9)
    index = scan(tmp_path, records=list_records(tmp_path, image_column="image", caption_column="text"), workers=0).index
    draws = {"resolution": 96, "buckets": {"step": 32, "min": 64, "max": 128}, "crop": "random", "flip": True}
    data = DataSpec.model_validate({"source": "x", **draws, "caption_dropout": 1.0, "held_out": {"count": 4}})
    order = held_out_order(index, data=data, num_levels=3, global_batch=2)
    return SampleSource(index, (tmp_path,), data=data, seed=0), HeldOutSource(
        index, (tmp_path,), data=data, seed=0, held_out=order
    )


def test_nothing_is_drawn(sources):
    _, held_out = sources
    steps = range(held_out.held_out.num_batches)
    chosen = [held_out.chosen(step, place, global_batch=2) for step in steps for place in range(2)]
    assert {one.number for one in chosen} == set(roles_of(held_out.index, data=held_out.data).held_out.tolist())
    assert not any(one.flipped for one in chosen)
    assert all(one.caption == one.entry.captions[0] for one in chosen)
    for crop in (one.crop for one in chosen):
        assert abs(2 * crop.left + crop.width - crop.scaled_width) <= 1
        assert abs(2 * crop.top + crop.height - crop.scaled_height) <= 1


def test_samples_of_a_batch_have_its_size(sources):
    _, held_out = sources
    for step in range(held_out.held_out.num_batches):
        shapes = {held_out.sample(step, place, global_batch=2).pixels_CHW.shape for place in range(2)}
        assert shapes == {(3, *held_out.held_out.size(step).shape)}


def test_training_never_draws_them(sources):
    trained, held_out = sources
    numbers = {trained.chosen(step, place, global_batch=2).number for step in range(30) for place in range(2)}
    assert len(numbers) == 5
    assert numbers.isdisjoint(held_out.roles.held_out.tolist())

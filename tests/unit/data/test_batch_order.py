"""With buckets: batches of one size, every picture as often as any other, any step counted out."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sdjob.data.batch_order import BucketOrder, PlainOrder
from sdjob.data.buckets import TargetSize
from sdjob.data.order import picture_at

SIZES = [TargetSize(64, 128), TargetSize(96, 96), TargetSize(128, 64), TargetSize(160, 32)]


def order_of(counts: list[int], *, global_batch: int, seed: int = 3) -> BucketOrder:
    """Pictures are numbered through all sizes, from 100 on."""
    ends = np.cumsum([100, *counts])
    pools = {size: np.arange(first, after) for size, first, after in zip(SIZES, ends, ends[1:], strict=False)}
    return BucketOrder(pools, prior={}, seed=seed, global_batch=global_batch)


def batches(order: BucketOrder, steps: range) -> list[tuple[TargetSize, list[int]]]:
    return [(order.size(step), [order.picture(step, place) for place in range(order.global_batch)]) for step in steps]


def walked(order: BucketOrder, *, epochs: int) -> list[list[tuple[TargetSize, int]]]:
    """By epoch its batches, found by walking: what the definition says, with none of the closed forms."""
    queued, made = Counter[TargetSize](), Counter[TargetSize]()
    found: list[list[tuple[TargetSize, int]]] = []
    for _ in range(epochs):
        of_epoch = []
        for size, pool in order.pools.items():
            queued[size] += len(pool)
            while queued[size] >= order.global_batch:
                queued[size] -= order.global_batch
                of_epoch.append((size, made[size]))
                made[size] += 1
        found.append(of_epoch)
    return found


counts_and_batch = st.tuples(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 9))


@settings(deadline=None, max_examples=60)
@given(counts_and_batch)
def test_an_epoch_has_the_whole_batches_of_each_size_and_what_was_left_over(case: tuple[list[int], int]):
    counts, global_batch = case
    order = order_of(counts, global_batch=global_batch)
    step = 0
    for expected in walked(order, epochs=6):
        of_epoch = batches(order, range(step, step + len(expected)))
        assert Counter(size for size, _ in of_epoch) == Counter(size for size, _ in expected)
        step += len(expected)


@settings(deadline=None, max_examples=60)
@given(counts_and_batch)
def test_a_batch_has_one_size_and_each_sizes_stream_is_without_a_gap(case: tuple[list[int], int]):
    counts, global_batch = case
    order = order_of(counts, global_batch=global_batch)
    passes = 3 * global_batch
    num_steps = sum(passes * count // global_batch for count in counts)
    found = batches(order, range(num_steps))
    for size, pictures in found:
        assert set(pictures) <= set(order.pools[size].tolist())
    # After a multiple of the batch no size has anything left over: every picture was there exactly so often.
    seen = Counter(picture for _, pictures in found for picture in pictures)
    assert seen == {picture: passes for pool in order.pools.values() for picture in pool.tolist()}


def test_batches_are_mixed_and_epochs_differ():
    order = order_of([40, 40, 40], global_batch=4)
    epochs = [[order.size(step) for step in range(30 * epoch, 30 * epoch + 30)] for epoch in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    changes = sum(one != other for one, other in zip(epochs[0], epochs[0][1:], strict=False))
    assert changes > 10  # sorted by size there would be 2
    other_seed = order_of([40, 40, 40], global_batch=4, seed=4)
    assert [other_seed.size(step) for step in range(30)] != epochs[0]


def test_the_order_is_fixed():
    """Another order would break every resume from a run of an older version."""
    found = batches(order_of([3, 5], global_batch=2, seed=0), range(8))
    assert [(str(size), pictures) for size, pictures in found] == [
        ("96 x 96", [105, 104]),
        ("64 x 128", [100, 101]),
        ("96 x 96", [106, 107]),
        ("96 x 96", [103, 106]),
        ("64 x 128", [101, 102]),
        ("96 x 96", [104, 105]),
        ("64 x 128", [102, 100]),
        ("96 x 96", [103, 107]),
    ]


def test_any_step_is_found_without_the_ones_before():
    order = order_of([7, 1, 12], global_batch=5)
    far = 20 * 1_000_000  # a multiple of what is there: the state is that of the beginning, the permutations are others
    found = batches(order, range(4 * 1_000_000, 4 * 1_000_000 + 20))
    assert Counter(picture for _, pictures in found for picture in pictures) == dict.fromkeys(range(100, 120), 5)
    assert order.picture(far, 0) in range(100, 120)


def test_threads_agree():
    order = order_of([7, 5, 12], global_batch=5)
    alone = batches(order, range(200))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda step: batches(order, range(step, step + 1))[0], range(200))) == alone


@settings(deadline=None, max_examples=60)
@given(counts_and_batch, st.integers(0, 200))
def test_first_steps_are_the_first(case: tuple[list[int], int], start: int):
    counts, global_batch = case
    order = order_of(counts, global_batch=global_batch)
    for size, step in order.first_steps(start).items():
        assert step >= start
        assert order.size(step) == size
        assert all(order.size(before) != size for before in range(start, min(step, start + 500)))


def test_without_buckets_the_order_is_the_plain_one():
    order = PlainOrder(np.array([5, 9, 11]), SIZES[0], np.array([20, 21]), seed=2, global_batch=2)
    wanted = [[5, 9, 11][picture_at(position, num_pictures=3, seed=2)] for position in range(12)]
    assert [order.picture(step, place) for step in range(6) for place in range(2)] == wanted
    beside = [[20, 21][picture_at(position, num_pictures=2, seed=2, name="prior order")] for position in range(12)]
    assert [order.picture(step, 2 + place) for step in range(6) for place in range(2)] == beside
    assert order.first_steps(17) == {order.size(17): 17}

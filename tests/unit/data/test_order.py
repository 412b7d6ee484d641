"""The endless stream of positions."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdjob.data.order import picture_at, total_steps


@settings(deadline=None)
@given(num_pictures=st.integers(1, 60), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
def test_an_epoch_holds_every_picture_once(num_pictures: int, seed: int, epoch: int):
    positions = range(epoch * num_pictures, (epoch + 1) * num_pictures)
    found = [picture_at(position, num_pictures=num_pictures, seed=seed) for position in positions]
    assert sorted(found) == list(range(num_pictures))


def test_the_order_is_fixed():
    """Another order would break every resume from a run of an older version."""
    assert [picture_at(position, num_pictures=8, seed=0) for position in range(16)] == [
        6,
        7,
        5,
        4,
        0,
        3,
        1,
        2,
        2,
        3,
        6,
        5,
        1,
        7,
        0,
        4,
    ]


def test_epochs_and_seeds_differ():
    orders = {
        tuple(picture_at(epoch * 20 + place, num_pictures=20, seed=seed) for place in range(20))
        for epoch in range(5)
        for seed in range(5)
    }
    assert len(orders) == 25


def test_any_position_is_found_without_the_ones_before():
    far = [picture_at(position, num_pictures=7, seed=3) for position in range(7_000_000, 7_000_007)]
    assert sorted(far) == list(range(7))


def test_threads_agree():
    positions = range(3000)
    alone = [picture_at(position, num_pictures=11, seed=1) for position in positions]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda position: picture_at(position, num_pictures=11, seed=1), positions))
    assert together == alone


@pytest.mark.parametrize(
    ("epochs", "num_pictures", "global_batch", "steps"),
    [(1, 12, 4, 3), (1, 13, 4, 4), (2, 13, 4, 7), (3, 1, 8, 1), (1, 10**18 + 1, 1, 10**18 + 1), (0.1, 10, 1, 1), (0.5, 7, 2, 2)],
)
def test_total_steps(epochs: float, num_pictures: int, global_batch: int, steps: int):
    assert total_steps(epochs, num_pictures=num_pictures, global_batch=global_batch) == steps

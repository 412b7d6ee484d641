"""When to save, what to keep: tables and laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdjob.ckpt.policy import fits_notice, should_save, steps_to_retire

steps_lists = st.lists(st.integers(0, 2000), max_size=30)


def saves(
    step: int, *, every_steps: int | None = 5, every_seconds: float | None = None, last: int = 0, since_s: float = 0.0
) -> bool:
    return should_save(
        step,
        total_steps=12,
        every_steps=every_steps,
        last_saved_step=last,
        seconds_since_save=since_s,
        every_seconds=every_seconds,
    )


class TestShouldSave:
    def test_every_few_steps_and_the_last(self):
        assert [step for step in range(1, 13) if saves(step)] == [5, 10, 12]

    def test_the_last_step_even_without_an_interval(self):
        assert [step for step in range(1, 13) if saves(step, every_steps=None)] == [12]
        assert saves(12, every_steps=500)

    def test_by_seconds(self):
        assert not saves(3, every_steps=None, every_seconds=60, since_s=59.9)
        assert saves(3, every_steps=None, every_seconds=60, since_s=60)

    def test_either_is_enough(self):
        assert saves(3, every_seconds=60, since_s=61)
        assert saves(5, every_seconds=60, since_s=1)

    def test_never_a_step_that_is_saved(self):
        assert not saves(5, last=5)
        assert not saves(12, last=12)
        assert not saves(4, last=5, every_seconds=1, since_s=100)


class TestStepsToRetire:
    @pytest.mark.parametrize(
        ("live", "keep", "keep_every", "final", "retired"),
        [
            ([], 3, None, None, []),
            ([1, 2, 3], 3, None, None, []),
            ([1, 2, 3, 4, 5], 3, None, None, [1, 2]),
            ([5, 4, 3, 2, 1], 3, None, None, [1, 2]),
            ([500, 1000, 1500, 2000, 2500], 1, 1000, None, [500, 1500]),
            ([1, 2, 3, 4, 5], 1, None, 2, [1, 3, 4]),
            ([1, 2, 3], 0, None, None, [1, 2]),
        ],
    )
    def test_table(self, live, keep, keep_every, final, retired):
        assert steps_to_retire(live, keep=keep, keep_every=keep_every, final_step=final) == retired

    @given(steps_lists, st.integers(0, 10), st.none() | st.integers(1, 50), st.none() | st.integers(0, 2000))
    def test_laws(self, live, keep, keep_every, final):
        retired = steps_to_retire(live, keep=keep, keep_every=keep_every, final_step=final)
        kept = set(live) - set(retired)
        assert set(retired) <= set(live)
        assert retired == sorted(set(retired))
        assert set(sorted(set(live))[-max(keep, 1) :]) <= kept
        assert all(step in kept for step in live if step == final or (keep_every and step % keep_every == 0))
        assert steps_to_retire(sorted(kept), keep=keep, keep_every=keep_every, final_step=final) == []


class TestFitsNotice:
    def test_seven_tenths_of_what_is_left(self):
        assert fits_notice(700, bytes_per_s=100, seconds_left=10)
        assert not fits_notice(701, bytes_per_s=100, seconds_left=10)

    @pytest.mark.parametrize(("bytes_per_s", "seconds_left"), [(0.0, 10.0), (100.0, 0.0), (100.0, -5.0)])
    def test_nothing_fits_without_bandwidth_or_time(self, bytes_per_s, seconds_left):
        assert not fits_notice(1, bytes_per_s=bytes_per_s, seconds_left=seconds_left)

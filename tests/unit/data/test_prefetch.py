"""Drawn ahead or not, by many threads or none: the same batches, the same errors, and no thread left behind."""

import threading
from pathlib import Path

import pytest

from fakes.pictures import write_picture_folder
from sdjob.core.errors import DataError
from sdjob.data.index import scan
from sdjob.data.prefetch import Prefetch, SampleBatches
from sdjob.data.records import list_records
from sdjob.data.samples import SampleSource
from sdjob.spec.data import DataSpec

PATIENCE_S = 30.0  # for events that come at once unless the code is wrong


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("prefetch", "decode"))]


@pytest.mark.parametrize("depth", [0, 1, 2, 7])
class TestAnyDepth:
    @pytest.mark.parametrize(("start", "stop"), [(0, 5), (3, 5), (4, 5), (5, 5), (6, 5)])
    def test_all_steps_in_order(self, depth: int, start: int, stop: int):
        with Prefetch(lambda step: step * 10, start=start, stop=stop, depth=depth) as batches:
            assert list(batches) == [step * 10 for step in range(start, stop)]

    def test_an_error_comes_at_its_step_and_ends_the_iteration(self, depth: int):
        def make(step: int) -> int:
            if step == 3:
                raise DataError("broken", where="step 3")
            return step

        batches = Prefetch(make, start=0, stop=9, depth=depth)
        assert [next(batches), next(batches), next(batches)] == [0, 1, 2]
        with pytest.raises(DataError, match="step 3: broken"):
            next(batches)
        assert list(batches) == []
        assert not own_threads()

    def test_no_thread_is_left_behind_at_the_end(self, depth: int):
        assert list(Prefetch(lambda step: step, start=0, stop=4, depth=depth)) == [0, 1, 2, 3]
        assert not own_threads()

    def test_close_may_come_at_any_time_and_again(self, depth: int):
        batches = Prefetch(lambda step: step, start=0, stop=1000, depth=depth)
        batches.close()
        batches.close()
        assert list(batches) == []
        begun = Prefetch(lambda step: step, start=0, stop=1000, depth=depth)
        next(begun)
        begun.close()
        begun.close()
        assert list(begun) == []
        assert not own_threads()

    def test_nothing_starts_before_it_is_asked_for(self, depth: int):
        made: list[int] = []
        Prefetch(made.append, start=0, stop=9, depth=depth)
        assert not made
        assert not own_threads()


def test_the_caller_draws_at_depth_0():
    with Prefetch(lambda step: threading.current_thread(), start=0, stop=2, depth=0) as batches:
        assert list(batches) == [threading.main_thread()] * 2


def test_a_thread_draws_ahead_but_not_beyond_the_depth():
    made: list[int] = []
    third = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 2:
            third.set()
        return step

    with Prefetch(make, start=0, stop=9, depth=2) as batches:
        assert next(batches) == 0
        assert third.wait(PATIENCE_S), "steps 1 and 2 are drawn while step 0 is in use"
        assert made == [0, 1, 2]
        assert next(batches) == 1
    assert max(made) <= 3


def test_close_drops_what_waits_and_ends_with_the_step_in_hand():
    begun, go_on = threading.Event(), threading.Event()
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        if step == 1:
            begun.set()
            go_on.wait(PATIENCE_S)
        return step

    batches = Prefetch(make, start=0, stop=1000, depth=5)
    assert next(batches) == 0
    assert begun.wait(PATIENCE_S)
    dropped = threading.Semaphore(0)
    for waiting in list(batches._ahead)[1:]:  # all but the step in hand
        waiting.add_done_callback(lambda _: dropped.release())
    closing = threading.Thread(target=batches.close)
    closing.start()
    assert all(dropped.acquire(timeout=PATIENCE_S) for _ in range(4)), "steps 2 to 5 are dropped before step 1 is done"
    go_on.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert made == [0, 1]
    assert not own_threads()


class TestSampleBatches:
    @pytest.fixture
    def source(self, tmp_path: Path) -> SampleSource:
        write_picture_folder(tmp_path, count=9)
        records = list_records(tmp_path, image_column="image", caption_column="text")
        data = DataSpec(source="x", crop="random", flip=True, caption_dropout=0.2)
        data = data.model_copy(update={"resolution": data.resolution.model_copy(update={"width": 64, "height": 64})})
        return SampleSource(index=scan(tmp_path, records=records, workers=0).index, folders=(tmp_path,), data=data, seed=3)

    def drawn(self, source: SampleSource, *, workers: int, depth: int, members: range = range(4)) -> list[tuple]:
        batches = SampleBatches(source, global_batch=4, members=members, workers=workers)
        with Prefetch(batches.batch, start=2, stop=8, depth=depth) as steps:
            facts = [[(one.id, one.caption, one.flipped, one.crop, one.pixels_CHW.tobytes()) for one in step] for step in steps]
        batches.close()
        batches.close()
        return facts

    @pytest.mark.parametrize(("workers", "depth"), [(0, 2), (1, 0), (2, 2), (5, 3)])
    def test_any_number_of_threads_draws_the_same(self, source: SampleSource, workers: int, depth: int):
        assert self.drawn(source, workers=workers, depth=depth) == self.drawn(source, workers=0, depth=0)
        assert not own_threads()

    def test_members_are_a_part_of_the_whole(self, source: SampleSource):
        whole = self.drawn(source, workers=0, depth=0)
        parts = [self.drawn(source, workers=2, depth=1, members=members) for members in (range(2), range(2, 4))]
        assert [first + second for first, second in zip(*parts, strict=True)] == whole

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_changed_picture_is_named_at_its_step(self, source: SampleSource, workers: int):
        batches = SampleBatches(source, global_batch=3, members=range(3), workers=workers)
        (source.folders[0] / batches.batch(1)[2].id).write_bytes(b"changed")
        with Prefetch(batches.batch, start=0, stop=3, depth=2) as steps:
            assert len(next(steps)) == 3
            with pytest.raises(DataError, match="has changed"):
                next(steps)
        batches.close()
        assert not own_threads()

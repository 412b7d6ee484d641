"""The index of all the job's pictures: made once, read later; several sources in one."""

import io
from pathlib import Path

import pytest

from fakes.checkpoints import make_job
from fakes.clock import FakeClock
from fakes.data_sets import as_parquet, drawn_pairs, write_objects
from fakes.memory_store import MemoryStore
from fakes.pictures import write_picture_folder
from sdjob.core.errors import DataError, StoppedError
from sdjob.core.log import Log
from sdjob.data.roles import roles_of
from sdjob.job.fetch import Here
from sdjob.job.stage_data import INDEX_KEY, StagedIndex, stage_index, stage_pictures


def here(scratch, *, check_stop=lambda: None):
    log = Log(mode="text", stream=io.StringIO(), secrets=())
    return Here(Path(scratch), check_stop=check_stop, clock=FakeClock(), log=log)


class TestIndex:
    @pytest.fixture
    def pictures(self, tmp_path):
        write_picture_folder(tmp_path / "pictures", count=6)
        return tmp_path / "pictures"

    def job(self, source, **data):
        return make_job(data={"source": str(source), **data}, run={"workers": 0})

    def staged(self, pictures, *, store, may_write=True, stop=lambda: None, **data):
        machine = here(pictures.parent / "scratch", check_stop=stop)
        return stage_index(self.job(pictures, **data), store=store, may_write=may_write, here=machine)

    def test_the_first_attempt_scans_and_later_ones_read_what_it_wrote(self, pictures):
        store = MemoryStore()
        first = self.staged(pictures, store=store)
        assert len(first.index) == 6
        assert first.pictures == (pictures,)
        (pictures / "picture-0003.jpg").unlink()
        assert self.staged(pictures, store=store) == StagedIndex(first.index, None)

    def test_a_look_writes_nothing(self, pictures):
        store = MemoryStore()
        assert len(self.staged(pictures, store=store, may_write=False).index) == 6
        assert INDEX_KEY not in store.objects

    def test_max_samples(self, pictures):
        assert len(self.staged(pictures, store=MemoryStore(), max_samples=2).index) == 2

    def test_too_many_bad_pictures(self, pictures):
        (pictures / "picture-0003.jpg").write_bytes(b"torn")
        store = MemoryStore()
        with pytest.raises(DataError):
            self.staged(pictures, store=store)
        assert store.objects == {}

    def test_a_stop_is_heard_between_pictures(self, pictures):
        def stop():
            raise StoppedError("asked")

        with pytest.raises(StoppedError):
            self.staged(pictures, store=MemoryStore(), stop=stop)

    def test_rows_are_scanned_from_scratch_and_brought_back_there(self, tmp_path):
        pairs = drawn_pairs(5)
        write_objects(tmp_path / "data", as_parquet(pairs))
        store = MemoryStore()
        first = self.staged(tmp_path / "data", store=store)
        assert first.pictures is not None
        assert first.pictures[0].is_relative_to(tmp_path / "scratch")
        later = self.staged(tmp_path / "data", store=store)
        assert later == StagedIndex(first.index, None)
        (folder,) = stage_pictures(self.job(tmp_path / "data"), index=later.index, here=here(tmp_path / "other"))
        assert [(folder / entry.id).read_bytes() for entry in later.index.entries] == [pair.picture for pair in pairs]


class TestSeveralSources:
    @pytest.fixture
    def job(self, tmp_path):
        """Own pictures in two forms with their own columns, prior pictures without captions, and some that are held out."""
        write_picture_folder(tmp_path / "few", count=2, seed=1)
        pairs = drawn_pairs(3)
        write_objects(tmp_path / "rows", as_parquet(pairs))
        write_picture_folder(tmp_path / "class", count=4, seed=2, captions="txt")
        for text in (tmp_path / "class").glob("*.txt"):
            text.unlink()
        write_picture_folder(tmp_path / "apart", count=1, seed=3)
        sources = [
            {"source": str(tmp_path / "few"), "repeats": 3, "trigger_word": "sks", "caption_prefix": "photo, "},
            {"source": str(tmp_path / "rows")},
        ]
        prior = {"source": str(tmp_path / "class"), "caption": "a shape"}
        data = {"source": "", "sources": sources, "prior": prior, "held_out": {"source": str(tmp_path / "apart")}}
        return make_job(data=data, run={"workers": 0})

    def test_the_index_tells_them_apart(self, job, tmp_path):
        store = MemoryStore()
        first = stage_index(job, store=store, may_write=True, here=here(tmp_path / "scratch"))
        index = first.index
        assert index.sources.tolist() == [0] * 2 + [1] * 3 + [2] * 4 + [3]
        assert {entry.captions[0].partition(" a ")[0] for entry in index.of_source(0).entries} == {"photo, sks,"}
        assert [entry.captions for entry in index.of_source(2).entries] == [("a shape",)] * 4
        roles = roles_of(index, data=job.data)
        assert roles.train.tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 4]
        assert (roles.prior.tolist(), roles.held_out.tolist()) == ([5, 6, 7, 8], [9])
        later = stage_index(job, store=store, may_write=True, here=here(tmp_path / "scratch"))
        assert later == StagedIndex(index, None)

    def test_each_has_its_folder_again_on_another_machine(self, job, tmp_path):
        index = stage_index(job, store=MemoryStore(), may_write=False, here=here(tmp_path / "scratch")).index
        folders = stage_pictures(job, index=index, here=here(tmp_path / "other"))
        assert len(folders) == 4
        assert all((folders[entry.source] / entry.id).is_file() for entry in index.entries)

"""Every layout, in a folder and in a bucket: the same pictures, captions and index; and what a later attempt does."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.data_sets import LAYOUTS, Pair, as_folder, as_parquet, as_shards, as_tar, drawn_pairs, embedded_table, parquet_bytes
from fakes.memory_store import MemoryStore
from sdjob.core.errors import DataError, MissingError
from unit.data.gathering import Machine, fetched, placed

PAIRS = drawn_pairs(8)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "scratch")


def content(seen: dict[str, tuple[bytes | None, tuple[str, ...]]]) -> list[tuple[bytes | None, tuple[str, ...]]]:
    return list(seen.values())


@pytest.mark.parametrize("kind", ["folder", "bucket"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_the_same_pictures_and_captions(machine: Machine, tmp_path: Path, layout: str, kind: str):
    seen = machine.seen(placed(LAYOUTS[layout](PAIRS), kind=kind, folder=tmp_path / "data"))
    assert content(seen) == [(pair.picture, (pair.caption,)) for pair in PAIRS]
    assert list(seen) == sorted(seen, key=os.fsencode)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_and_a_bucket_have_the_same_index(machine: Machine, tmp_path: Path, layout: str):
    objects = LAYOUTS[layout](PAIRS)
    indexes = [machine.scan(placed(objects, kind=kind, folder=tmp_path / kind)).index for kind in ("folder", "bucket")]
    assert indexes[0].to_jsonl() == indexes[1].to_jsonl()
    assert len(indexes[0]) == len(PAIRS)


def test_ids_of_rows(machine: Machine):
    assert list(machine.seen(MemoryStore(as_shards(PAIRS[:3], count=2)))) == [
        "data/train-00000-of-00002/000000000.png",
        "data/train-00000-of-00002/000000001.jpg",
        "data/train-00001-of-00002/000000000.png",
    ]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Zs")), max_size=8)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(PAIRS), TEXT), min_size=1, max_size=6), st.sampled_from(sorted(LAYOUTS)))
def test_content_passes_unchanged(tmp_path: Path, rows: list[tuple[Pair, str]], layout: str):
    rows = [(pair, text.replace(",", "").replace('"', "").strip()) for pair, text in rows]
    pairs = [Pair(pair.picture, f"a {text}".strip(), pair.extension) for pair, text in rows]
    seen = Machine(tmp_path / os.urandom(4).hex()).seen(MemoryStore(LAYOUTS[layout](pairs)))
    assert content(seen) == [(pair.picture, (pair.caption,)) for pair in pairs]


class TestOrder:
    def test_listing_order_does_not_matter(self, machine: Machine, tmp_path: Path):
        objects = {f"{name}.parquet": as_parquet(PAIRS[:2])["data.parquet"] for name in ("b", "a", "a-1", "a1", "ä")}
        seen = list(machine.seen(MemoryStore(objects)))
        other = MemoryStore(objects)
        other.relist = sorted
        assert list(Machine(tmp_path / "other").seen(other)) == seen == sorted(seen, key=os.fsencode)
        assert [name.partition("/")[0] for name in seen[::2]] == ["a-1", "a", "a1", "b", "ä"]

    def test_a_file_named_like_the_folder_of_another(self, machine: Machine):
        content = as_parquet(PAIRS[:2])["data.parquet"]
        seen = list(machine.seen(MemoryStore({"a.parquet": content, "a/b.parquet": content})))
        assert seen == sorted(seen, key=os.fsencode)
        assert {name.rpartition("/")[0] for name in seen} == {"a.parquet", "a/b.parquet"}


class TestReuse:
    @pytest.mark.parametrize("make", [as_folder, as_parquet, as_tar])
    def test_what_was_fetched_is_not_fetched_again(self, machine: Machine, make: Any):
        store = MemoryStore(make(PAIRS))
        first = machine.seen(store)
        again = MemoryStore(store.objects)
        assert machine.seen(again) == first
        assert set(fetched(again)) <= {"metadata.jsonl"}

    @pytest.mark.parametrize("make", [as_folder, as_parquet, as_tar])
    @pytest.mark.parametrize("harm", ["damage", "remove"])
    def test_a_damaged_picture_is_fetched_again(self, machine: Machine, make: Any, harm: str):
        store = MemoryStore(make(PAIRS))
        first = machine.seen(store)
        victim = next(machine.scratch.glob("data/*/*/pictures/**/*3.jpg"))
        victim.unlink() if harm == "remove" else victim.write_bytes(bytes(victim.stat().st_size))
        assert machine.seen(store) == first

    @pytest.mark.parametrize("make", [as_folder, lambda pairs: as_shards(pairs, count=3)])
    def test_another_order_of_listing_is_the_same_source(self, machine: Machine, make: Any):
        store = MemoryStore(make(PAIRS))
        machine.seen(store)
        again = MemoryStore(store.objects)
        again.relist = sorted
        machine.seen(again)
        assert set(fetched(again)) <= {"metadata.jsonl"}

    @pytest.mark.parametrize("max_samples", [None, 8])
    def test_shards_are_removed_when_they_are_read(self, machine: Machine, max_samples: int | None):
        records = iter(machine.gather(MemoryStore(as_shards(PAIRS, count=4)), max_samples=max_samples).records)
        for _ in records:
            assert len(list(machine.scratch.glob("data/aside-*/**/*.parquet"))) <= 2

    def test_a_changed_source_is_another_listing(self, machine: Machine, tmp_path: Path):
        store = MemoryStore(as_parquet(PAIRS[:4]))
        old = machine.gather(store)
        assert len(list(old.records)) == 4
        store.objects |= as_parquet(PAIRS)
        new = machine.gather(store)
        assert len(list(new.records)) == 8
        assert old.folder != new.folder
        assert old.folder.is_dir()

    def test_a_sudden_death_leaves_nothing_that_looks_whole(self, machine: Machine):
        store = MemoryStore(as_parquet(PAIRS))
        records = iter(machine.gather(store).records)
        next(records)
        del records
        assert fetched(store) == ["data.parquet"]
        assert len(machine.seen(store)) == 8
        assert fetched(store) == ["data.parquet"] * 2

    @pytest.mark.parametrize("make", [as_folder, as_parquet, as_tar, LAYOUTS["csv, paths"]])
    def test_scratch_holds_the_pictures_once(self, machine: Machine, make: Any):
        machine.seen(MemoryStore(make(PAIRS)))
        files = [path for path in machine.scratch.rglob("*") if path.is_file() and "done" not in path.parts]
        assert sorted(path.read_bytes() for path in files) == sorted(pair.picture or b"" for pair in PAIRS)
        assert not list(machine.scratch.glob("data/aside-*"))

    def test_what_a_dead_process_left_aside_is_swept(self, machine: Machine):
        left = machine.scratch / "data/aside-new-dead"
        left.mkdir(parents=True)
        (left / "half").write_bytes(b"x")
        machine.seen(MemoryStore(as_parquet(PAIRS)))
        assert not left.exists()


class TestLaterAttempts:
    @pytest.mark.parametrize("kind", ["folder", "bucket"])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_another_machine_has_what_the_index_names(self, machine: Machine, tmp_path: Path, layout: str, kind: str):
        source = placed(LAYOUTS[layout](PAIRS), kind=kind, folder=tmp_path / "data")
        index = machine.scan(source).index
        pictures = Machine(tmp_path / "other").gather(source, index=index)
        assert [record.id for record in pictures.records] == [entry.id for entry in index.entries]
        assert [(pictures.folder / entry.id).read_bytes() for entry in index.entries] == [pair.picture for pair in PAIRS]

    def test_the_same_machine_asks_nothing_of_the_place(self, machine: Machine):
        index = machine.scan(store := MemoryStore(as_parquet(PAIRS))).index
        store.objects.clear()
        calls = len(store.calls)
        assert machine.gather(store, index=index).folder.is_dir()
        assert len(store.calls) == calls

    def test_only_the_files_that_are_needed_are_fetched(self, machine: Machine, tmp_path: Path):
        store = MemoryStore(as_shards(PAIRS, count=4))
        index = machine.scan(store, max_samples=2).index
        later = MemoryStore(store.objects)
        Machine(tmp_path / "other").gather(later, index=index, max_samples=2)
        assert fetched(later) == ["data/train-00000-of-00004.parquet"]

    @pytest.mark.parametrize("make", [as_folder, as_parquet, as_tar])
    def test_a_damaged_picture_is_fetched_again(self, machine: Machine, make: Any):
        store = MemoryStore(make(PAIRS))
        index = machine.scan(store).index
        victim = next(machine.scratch.glob("data/*/*/pictures/**/*3.jpg"))
        victim.write_bytes(bytes(victim.stat().st_size))
        pictures = machine.gather(store, index=index)
        assert (pictures.folder / index.entries[3].id).read_bytes() == PAIRS[3].picture

    @pytest.mark.parametrize("make", [as_folder, as_parquet, as_tar])
    def test_a_picture_that_is_gone_is_named(self, machine: Machine, tmp_path: Path, make: Any):
        store = MemoryStore(make(PAIRS))
        index = machine.scan(store).index
        store.objects = make(PAIRS[:-1])
        with pytest.raises(MissingError, match=r"no longer has 1 pictures of the run: .*000000007.jpg"):
            Machine(tmp_path / "other").gather(store, index=index)

    @pytest.mark.parametrize("make", [as_folder, as_parquet, as_tar])
    def test_a_picture_that_changed_is_named_and_never_substituted(self, machine: Machine, tmp_path: Path, make: Any):
        store = MemoryStore(make(PAIRS))
        index = machine.scan(store).index
        store.objects = make([*PAIRS[:-1], PAIRS[5]])
        with pytest.raises(DataError, match=r"has other pictures than the run began with: .*000000007.jpg"):
            Machine(tmp_path / "other").gather(store, index=index)

    def test_a_folder_that_is_used_where_it_stands_is_not_listed_again(self, machine: Machine, tmp_path: Path):
        """A listing refuses the link; some of the pictures are enough to know the folder by."""
        source = placed(as_folder(PAIRS), kind="folder", folder=tmp_path / "data")
        assert isinstance(source, Path)
        index = machine.scan(source).index
        (source / "aside").symlink_to(tmp_path)
        assert machine.gather(source, index=index).folder == source
        (source / index.entries[0].id).unlink()
        with pytest.raises(DataError, match="is a link to"):
            machine.gather(source, index=index)

    def test_pictures_that_came_later_do_not_matter(self, machine: Machine, tmp_path: Path):
        store = MemoryStore(as_folder(PAIRS[:4]))
        index = machine.scan(store).index
        store.objects = as_folder(PAIRS)
        assert len(list(Machine(tmp_path / "other").gather(store, index=index).records)) == 4


class TestMaxSamples:
    def test_later_files_are_not_fetched(self, machine: Machine):
        store = MemoryStore(as_shards(PAIRS, count=4))
        assert len(machine.scan(store, max_samples=3).index) == 3
        assert fetched(store) == [f"data/train-0000{number}-of-00004.parquet" for number in (0, 1)]

    def test_bad_pictures_are_made_up_for(self, machine: Machine):
        bad = [Pair(b"torn", "a"), Pair(None, "b"), Pair(PAIRS[0].picture, None), Pair(PAIRS[0].picture, " ")]
        result = machine.scan(MemoryStore(as_shards([*bad, *PAIRS], count=4)), max_samples=3)
        assert [entry.captions[0] for entry in result.index.entries] == [pair.caption for pair in PAIRS[:3]]
        assert [picture.why for picture in result.bad] == [
            "is not a picture of a known format",
            "is missing",
            "has no caption",
            "has no caption",
        ]

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_first_in_the_order_of_ids(self, machine: Machine, tmp_path: Path, layout: str):
        index = machine.scan(MemoryStore(LAYOUTS[layout](PAIRS)), max_samples=3).index
        whole = Machine(tmp_path / "other").scan(MemoryStore(LAYOUTS[layout](PAIRS))).index
        assert index.entries == whole.entries[:3]


class TestRows:
    def test_unknown_bytes_have_no_extension_and_are_for_the_scan_to_judge(self, machine: Machine):
        result = machine.scan(MemoryStore(as_parquet([Pair(b"?", "a"), Pair(b"", "b")])))
        assert [(picture.id, picture.why) for picture in result.bad] == [
            ("data/000000000", "is not a picture of a known format"),
            ("data/000000001", "is not a picture of a known format"),
        ]

    def test_a_list_of_captions(self, machine: Machine):
        import pyarrow as pa

        table = embedded_table(PAIRS[:1]).set_column(1, "text", pa.array([["one", " ", "two"]]))
        assert content(machine.seen(MemoryStore({"a.parquet": parquet_bytes(table)})))[0][1] == ("one", "two")

    def test_bytes_count_more_than_the_path_beside_them(self, machine: Machine):
        import pyarrow as pa

        pictures = pa.array([{"bytes": PAIRS[0].picture, "path": "/home/somebody/a.png"}])
        table = embedded_table(PAIRS[:1]).set_column(0, "image", pictures)
        assert content(machine.seen(MemoryStore({"a.parquet": parquet_bytes(table)})))[0][0] == PAIRS[0].picture


class TestWords:
    """Errors about files of a bucket name them in the bucket, never on scratch."""

    @pytest.mark.parametrize(
        ("objects", "where"),
        [
            ({"metadata.jsonl": b"{", "a.png": b"x"}, "s3://bucket/data/metadata.jsonl:1"),
            ({"metadata.jsonl": b"\n"}, "s3://bucket/data"),
            ({"a.txt": b"\xff", "a.png": b"x"}, "s3://bucket/data/a.txt"),
            ({"metadata.csv": b"file_name,text\n../../a.png,x\n"}, "s3://bucket/data/metadata.csv:2"),
        ],
    )
    def test_where(self, machine: Machine, objects: dict[str, bytes], where: str):
        with pytest.raises(DataError) as caught:
            machine.seen(MemoryStore(objects))
        assert caught.value.where == where

"""Shards: what is a sample, what is refused, and what no archive can do."""

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fakes.data_sets import Pair, drawn_pairs, samples_of, tar_bytes
from fakes.memory_store import MemoryStore, flipped
from sdjob.core.errors import DataError
from sdjob.data.webdataset import LARGEST_NOTE_BYTES, LONGEST_NAME, safe_name
from unit.data.gathering import Machine

PAIRS = drawn_pairs(4)
PNG, JPG = PAIRS[0].picture or b"", PAIRS[1].picture or b""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "scratch")


def seen(machine: Machine, *members: tuple[Any, bytes], compress: bool = False, **data: Any) -> dict[str, Any]:
    key = "a.tar.gz" if compress else "a.tar"
    return machine.seen(MemoryStore({key: tar_bytes(members, compress=compress)}), **data)


def special(name: str, kind: bytes, *, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


class TestSamples:
    def test_files_of_a_sample_need_not_stand_together(self, machine: Machine):
        found = seen(machine, ("b.png", PNG), ("a.jpg", JPG), ("a.txt", b"first"), ("b.txt", b"second"))
        assert found == {"a/a.jpg": (JPG, ("first",)), "a/b.png": (PNG, ("second",))}

    def test_ids_are_in_the_order_of_their_bytes(self, machine: Machine):
        names = ["a", "a-b", "a b", "B", "ä", "z/1", "z-1"]
        members = [member for name in names for member in ((f"{name}.png", PNG), (f"{name}.txt", b"x"))]
        found = list(seen(machine, *members))
        assert found == sorted(found, key=str.encode)
        assert found == ["a/B.png", "a/a b.png", "a/a-b.png", "a/a.png", "a/z%2F1.png", "a/z-1.png", "a/ä.png"]

    def test_the_name_ends_at_the_first_dot(self, machine: Machine):
        found = seen(machine, ("x/1.png", PNG), ("x/1.seg.png", JPG), ("x/1.txt", b"one"))
        assert found == {"a/x%2F1.png": (PNG, ("one",))}

    def test_what_is_no_sample_is_passed_over(self, machine: Machine):
        folder = special("x", tarfile.DIRTYPE)
        found = seen(
            machine,
            (folder, b""),
            ("./x/1.png", PNG),
            ("x/1.txt", b"one"),
            (".hidden.png", b"?"),
            ("__MACOSX/._1.png", b"?"),
            ("README", b""),
        )
        assert list(found) == ["a/x%2F1.png"]

    def test_lines_are_captions_as_in_a_folder(self, machine: Machine):
        assert seen(machine, ("1.png", PNG), ("1.txt", "\ufeffone\r\n\n two \n".encode())) == {"a/1.png": (PNG, ("one", "two"))}

    def test_extensions_in_capitals(self, machine: Machine):
        assert seen(machine, ("1.PNG", PNG), ("1.TXT", b"one")) == {"a/1.png": (PNG, ("one",))}

    def test_a_sample_without_picture_or_caption_is_for_the_scan_to_judge(self, machine: Machine):
        members = [("1.png", PNG), ("1.txt", b"one"), ("2.txt", b"two"), ("3.png", PNG)]
        result = machine.scan(MemoryStore({"a.tar": tar_bytes(members)}))
        assert [(picture.id, picture.why) for picture in result.bad] == [("a/2", "is missing"), ("a/3.png", "has no caption")]

    def test_a_very_long_name(self, machine: Machine):
        names = ["x" * 240 + end for end in ("1", "2")]
        found = seen(machine, *((f"{name}.{ext}", data) for name in names for ext, data in (("png", PNG), ("txt", b"x"))))
        assert len(found) == 2
        assert all(len(name) <= LONGEST_NAME + len("a/.png") for name in found)

    @pytest.mark.parametrize("name", ["..", ".", "a/b", "a\\b", "a\0b", "%2F", "a\n", "\udcff"])
    def test_a_name_is_one_file_and_no_other_names_file(self, name: str):
        spelled = safe_name(name)
        assert "/" not in spelled
        assert not spelled.startswith(".")
        assert spelled.isprintable()
        assert spelled != name


class TestColumns:
    def test_a_picture_column_by_its_extension(self, machine: Machine):
        members = [("1.png", PNG), ("1.jpg", JPG), ("1.txt", b"one")]
        assert seen(machine, *members, image_column="jpg") == {"a/1.jpg": (JPG, ("one",))}

    def test_two_pictures_are_a_question(self, machine: Machine):
        with pytest.raises(DataError, match=r"has several pictures: 'jpg', 'png'.*Set data.image_column"):
            seen(machine, ("1.png", PNG), ("1.jpg", JPG), ("1.txt", b"one"))

    def test_captions_of_the_json(self, machine: Machine):
        members = [("1.png", PNG), ("1.json", b'{"text": "of text", "caption": "of caption", "long": ["one", "two"]}')]
        assert seen(machine, *members) == {"a/1.png": (PNG, ("of text",))}
        assert seen(machine, *members, caption_column="long") == {"a/1.png": (PNG, ("one", "two"))}

    def test_txt_before_json(self, machine: Machine):
        members = [("1.png", PNG), ("1.json", b'{"caption": "of json"}'), ("1.txt", b"of txt")]
        assert seen(machine, *members) == {"a/1.png": (PNG, ("of txt",))}
        assert seen(machine, *members, caption_column="caption") == {"a/1.png": (PNG, ("of json",))}

    def test_a_class_as_caption(self, machine: Machine):
        assert seen(machine, ("1.png", PNG), ("1.cls", b"7"), caption_column="cls") == {"a/1.png": (PNG, ("7",))}

    def test_an_unknown_caption_column_names_the_others(self, machine: Machine):
        with pytest.raises(DataError) as caught:
            seen(machine, ("1.png", PNG), ("1.json", b'{"Caption": "x", "width": 3}'), caption_column="captions")
        assert "has no column 'captions'; its columns are 'png', 'json', 'Caption', 'width'. Did you mean 'Caption'?" in str(
            caught.value
        )
        assert caught.value.where == "s3://bucket/data/a.tar"

    def test_no_pictures_at_all(self, machine: Machine):
        with pytest.raises(DataError, match=r"has no column 'image'; its columns are 'mp4', 'txt'.*Set data.image_column"):
            seen(machine, ("1.mp4", b"x"), ("1.txt", b"one"))

    @pytest.mark.parametrize("note", [b"[1]", b'{"caption": 7}', b"{"])
    def test_a_bad_json_is_named(self, machine: Machine, note: bytes):
        with pytest.raises(DataError, match=r"a\.tar: 1\.json"):
            seen(machine, ("1.png", PNG), ("1.json", note))


class TestSafety:
    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
    def test_links_and_devices_are_refused(self, machine: Machine, kind: bytes):
        with pytest.raises(DataError, match="a link or a device; only plain files are read"):
            seen(machine, ("1.png", PNG), (special("2.png", kind, target="/etc/passwd"), b""), ("1.txt", b"x"))

    @pytest.mark.parametrize("name", ["/tmp/evil.png", "../evil.png", "x/../../evil.png", ".."])
    def test_names_that_lead_out_are_refused(self, machine: Machine, tmp_path: Path, name: str):
        with pytest.raises(DataError, match="leads out of the archive"):
            seen(machine, (name, PNG), ("1.txt", b"x"))
        assert not list(tmp_path.rglob("*evil*"))

    def test_nothing_is_written_under_a_name_of_the_archives_choosing(self, machine: Machine):
        seen(machine, ("x/y.png", PNG), ("x/y.txt", b"x"), ("x/y.sh", b"rm"), ("z.tar", b"x"))
        written = {path.name for path in machine.scratch.rglob("*") if path.is_file() and "done" not in path.parts}
        assert written == {"x%2Fy.png"}

    def test_a_caption_of_many_bytes_is_refused(self, machine: Machine):
        with pytest.raises(DataError, match="is no caption"):
            seen(machine, ("1.png", PNG), ("1.txt", bytes(LARGEST_NOTE_BYTES + 1)))

    def test_the_same_name_twice(self, machine: Machine):
        with pytest.raises(DataError, match="stands twice"):
            seen(machine, ("1.png", PNG), ("1.txt", b"x"), ("1.png", JPG))


class TestDamage:
    @pytest.mark.parametrize("compress", [False, True])
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
    def test_a_shard_that_is_cut_short(self, machine: Machine, compress: bool, share: float):
        whole = tar_bytes(samples_of(PAIRS), compress=compress)
        key = "a.tar.gz" if compress else "a.tar"
        with pytest.raises(DataError, match="is damaged or cut short") as caught:
            machine.seen(MemoryStore({key: whole[: int(len(whole) * share)]}))
        assert caught.value.where == f"s3://bucket/data/{key}"
        assert caught.value.exit_code == 65

    def test_every_cut_at_a_block_is_noticed(self, machine: Machine):
        """tarfile itself takes an end between two files for the archive's."""
        whole = tar_bytes(samples_of(PAIRS[:2]))
        end = len(whole.rstrip(b"\0"))
        for size in range(0, end, tarfile.BLOCKSIZE):
            with pytest.raises(DataError, match="is damaged or cut short"):
                machine.seen(MemoryStore({"a.tar": whole[:size]}))

    def test_a_damaged_header_in_the_middle(self, machine: Machine):
        """tarfile itself takes it for the archive's end."""
        whole = tar_bytes(samples_of(PAIRS))
        at = whole.index(b"000000002.png")
        with pytest.raises(DataError, match="is damaged or cut short"):
            machine.seen(MemoryStore({"a.tar": flipped(whole, at=at)}))

    def test_damage_of_compressed_data(self, machine: Machine):
        whole = tar_bytes(samples_of([Pair(bytes(5000), "x")]), compress=True)
        checksum = len(whole) - 8
        with pytest.raises(DataError, match="is damaged or cut short"):
            machine.seen(MemoryStore({"a.tar.gz": flipped(whole, at=checksum)}))

    def test_no_archive_at_all(self, machine: Machine):
        for content in (b"", b"x" * 5000, gzip.compress(b"x")):
            with pytest.raises(DataError, match="is damaged or cut short"):
                machine.seen(MemoryStore({"a.tar": content}))

    def test_a_torn_shard_leaves_no_note_of_being_done(self, machine: Machine):
        whole = tar_bytes(samples_of(PAIRS))
        with pytest.raises(DataError):
            machine.seen(MemoryStore({"a.tar": whole[: len(whole) // 2]}))
        assert not list(machine.scratch.glob("data/*/*/done/*"))

    def test_gnu_and_pax_headers(self, machine: Machine):
        for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w", format=form) as tar:
                for name, content in (("ü" * 30 + ".png", PNG), ("ü" * 30 + ".txt", b"x")):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
            assert list(machine.seen(MemoryStore({"a.tar": file.getvalue()}))) == [f"a/{'ü' * 30}.png"]

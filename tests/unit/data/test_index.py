"""The scan, the share of bad pictures, and the index's lines."""

import hashlib
import io
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fakes.pictures import write_picture_folder
from sdjob.core.errors import DataError, DeniedError, StorageError
from sdjob.core.log import Log
from sdjob.data.entries import Entry
from sdjob.data.images import ORIENTATION_TAG
from sdjob.data.index import BadPicture, Index, ScanResult, check_bad_share, scan
from sdjob.data.records import Record, list_records


def scanned(folder: Path, *, workers: int = 0, max_samples: int | None = None) -> ScanResult:
    records = list_records(folder, image_column="image", caption_column="text")
    return scan(folder, records=records, workers=workers, max_samples=max_samples)


def entry(number: int = 0) -> Entry:
    name = f"größe {number}\u2028.png"
    return Entry(id=name, sha256=hashlib.sha256(name.encode()).hexdigest(), width=3 + number, height=2, captions=("猫", "b\n"))


def result(*, good: int, bad: int) -> ScanResult:
    names = tuple(BadPicture(id=f"bad-{number}.png", why="has no caption") for number in range(bad))
    return ScanResult(index=Index(entries=tuple(entry(number) for number in range(good))), bad=names)


def recording_log() -> Log:
    return Log(mode="json", stream=io.StringIO())


class TestScan:
    def test_entries_tell_of_the_files(self, tmp_path: Path):
        write_picture_folder(tmp_path, count=7)
        index = scanned(tmp_path).index
        assert [one.id for one in index.entries] == sorted(path.name for path in tmp_path.glob("picture-*"))
        for one in index.entries:
            assert one.sha256 == hashlib.sha256((tmp_path / one.id).read_bytes()).hexdigest()
            with Image.open(tmp_path / one.id) as picture:
                assert (one.width, one.height) == picture.size
            assert len(one.captions) == 1

    def test_the_size_is_that_of_the_upright_picture(self, tmp_path: Path):
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = 6
        Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
        (tmp_path / "a.txt").write_text("a", encoding="utf-8")
        assert [(one.width, one.height) for one in scanned(tmp_path).index.entries] == [(20, 30)]

    @pytest.mark.parametrize("captions", ["jsonl", "csv", "txt"])
    def test_all_three_styles_make_the_same_index(self, tmp_path: Path, captions):
        write_picture_folder(tmp_path / "one", count=8, captions="jsonl")
        write_picture_folder(tmp_path / "other", count=8, captions=captions)
        assert scanned(tmp_path / "one").index.sha256 == scanned(tmp_path / "other").index.sha256

    def test_any_number_of_workers_gives_the_same(self, tmp_path: Path):
        write_picture_folder(tmp_path, count=40)
        for number in (3, 17, 39):
            next(tmp_path.glob(f"picture-{number:04d}.*")).write_bytes(b"broken")
        results = [scanned(tmp_path, workers=workers) for workers in (0, 1, 2, 7)]
        assert len(results[0].index) == 37
        assert all(one == results[0] for one in results)

    def test_what_is_bad_and_why(self, tmp_path: Path):
        write_picture_folder(tmp_path, count=2)
        (tmp_path / "broken.png").write_text("text", encoding="utf-8")
        (tmp_path / "folder.png").mkdir()
        (tmp_path / "cut.jpg").write_bytes((tmp_path / "picture-0000.png").read_bytes()[:200])
        records = [
            *list_records(tmp_path, image_column="image", caption_column="text"),
            Record("broken.png", ("b",)),
            Record("gone.png", ("g",)),
            Record("folder.png", ("f",)),
            Record("picture-0000.png/x.png", ("x",)),
            Record("caf\udce9.png", ("c",)),
        ]
        found = {bad.id: bad.why for bad in scan(tmp_path, records=records[2:], workers=2).bad if bad.why != "has no caption"}
        assert found == {
            "broken.png": "is not a picture of a known format",
            "gone.png": "is missing",
            "folder.png": "is missing",
            "picture-0000.png/x.png": "is missing",
            "caf\\udce9.png": "has a name that is not UTF-8",
        }

    def test_no_caption_is_bad(self, tmp_path: Path):
        write_picture_folder(tmp_path, count=1)
        Image.new("RGB", (4, 4)).save(tmp_path / "silent.png")
        assert scanned(tmp_path).bad == (BadPicture(id="silent.png", why="has no caption"),)

    @pytest.mark.parametrize("workers", [0, 3])
    def test_max_samples_are_the_first_good_ones(self, tmp_path: Path, workers: int):
        write_picture_folder(tmp_path, count=20)
        for number in (1, 9):
            next(tmp_path.glob(f"picture-{number:04d}.*")).write_bytes(b"broken")
        few, everything = scanned(tmp_path, workers=workers, max_samples=6), scanned(tmp_path)
        assert few.index.entries == everything.index.entries[:6]
        assert len(few.bad) == 1, "picture 9 comes after the sixth good one, whoever decoded it ahead"
        assert scanned(tmp_path, workers=workers, max_samples=100) == everything

    @pytest.mark.parametrize("workers", [0, 2])
    def test_progress_counts_up_in_the_calling_thread(self, tmp_path: Path, workers: int):
        write_picture_folder(tmp_path, count=5)
        seen: list[tuple[int, int, bool]] = []
        records = list_records(tmp_path, image_column="image", caption_column="text")

        def on_progress(done: int, total: int) -> None:
            seen.append((done, total, threading.current_thread() is threading.main_thread()))

        scan(tmp_path, records=records, workers=workers, on_progress=on_progress)
        assert seen == [(done, 5, True) for done in range(1, 6)]

    def test_no_thread_outlives_an_error(self, tmp_path: Path):
        write_picture_folder(tmp_path, count=30)
        records = list_records(tmp_path, image_column="image", caption_column="text")

        def on_progress(done: int, total: int) -> None:
            raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            scan(tmp_path, records=records, workers=3, on_progress=on_progress)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("scan")]

    @pytest.mark.parametrize(
        ("raised", "expected"), [(OSError(5, "Input/output error"), StorageError), (PermissionError(13, "no"), DeniedError)]
    )
    def test_storage_that_fails_is_no_bad_picture(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised, expected):
        write_picture_folder(tmp_path, count=3)
        records = list_records(tmp_path, image_column="image", caption_column="text")

        def fail(path: Path) -> bytes:
            raise raised

        monkeypatch.setattr(Path, "read_bytes", fail)
        with pytest.raises(expected, match=r"picture-0000\.png"):
            scan(tmp_path, records=records, workers=2)


class TestBadShare:
    @pytest.mark.parametrize(("good", "bad", "share"), [(99, 1, 0.01), (693, 7, 0.01), (1, 1, 0.5), (1, 9, 1.0)])
    def test_an_allowed_share_is_a_warning(self, good: int, bad: int, share: float):
        log = recording_log()
        check_bad_share(result(good=good, bad=bad), max_bad_share=share, log=log)
        event = json.loads(log.stream.getvalue())
        assert (event["event"], event["level"], event["bad"], event["good"]) == ("bad_pictures", "warning", bad, good)
        assert event["ids"][0] == "bad-0.png"
        assert "bad-0.png has no caption" in event["message"]

    @pytest.mark.parametrize(("good", "bad", "share"), [(98, 1, 0.01), (98, 2, 0.01), (999, 1, 0.0), (1, 2, 0.5)])
    def test_beyond_it_is_an_error(self, good: int, bad: int, share: float):
        with pytest.raises(DataError, match=rf"{bad} of {good + bad} pictures.*bad-0\.png has no caption.*{share:g}"):
            check_bad_share(result(good=good, bad=bad), max_bad_share=share, log=recording_log())

    def test_the_first_names_and_the_count_of_the_others(self):
        with pytest.raises(DataError) as caught:
            check_bad_share(result(good=1, bad=8), max_bad_share=0.1, log=recording_log())
        message = str(caught.value)
        assert "bad-4.png" in message
        assert "bad-5.png" not in message
        assert "and 3 more" in message

    def test_nothing_bad_is_nothing_said(self):
        log = recording_log()
        check_bad_share(result(good=3, bad=0), max_bad_share=0.0, log=log)
        assert log.stream.getvalue() == ""

    @pytest.mark.parametrize("bad", [0, 3])
    def test_no_good_picture_is_an_error_whatever_is_allowed(self, bad: int):
        with pytest.raises(DataError, match="Nothing is left to train on"):
            check_bad_share(result(good=0, bad=bad), max_bad_share=1.0, log=recording_log())


class TestLines:
    index = Index(entries=tuple(entry(number) for number in range(3)))

    def test_round_trip(self):
        assert Index.from_jsonl(self.index.to_jsonl()) == self.index
        assert Index.from_jsonl(Index(entries=()).to_jsonl()) == Index(entries=())
        assert len(self.index) == 3

    def test_the_bytes_are_fixed(self):
        """They are hashed into the identity of runs: a change would orphan every run that there is."""
        one = Index(entries=(Entry(id="ä.png", sha256="0" * 64, width=3, height=2, captions=("猫", 'a "b"')),))
        assert one.to_jsonl().decode() == (
            '{"pictures":1,"sdjob_index":1}\n'
            '{"captions":["猫","a \\"b\\""],"height":2,"id":"ä.png","sha256":"' + "0" * 64 + '","width":3}\n'
        )
        assert one.sha256 == hashlib.sha256(one.to_jsonl()).hexdigest()

    def test_pictures_of_several_sources(self):
        """They have another version: an older sdjob must not take them for one source's."""
        own = Entry("a.png", "0" * 64, 3, 2, ("a",))
        several = Index((own, replace(own, source=1)))
        assert several.to_jsonl().decode() == (
            '{"pictures":2,"sdjob_index":2}\n'
            f'{{"captions":["a"],"height":2,"id":"a.png","sha256":"{"0" * 64}","source":0,"width":3}}\n'
            f'{{"captions":["a"],"height":2,"id":"a.png","sha256":"{"0" * 64}","source":1,"width":3}}\n'
        )
        assert Index.from_jsonl(several.to_jsonl()) == several
        assert several.sources.tolist() == [0, 1]
        with pytest.raises(DataError, match="stands twice"):
            Index.from_jsonl(several.to_jsonl().replace(b'"source":1', b'"source":0'))

    @pytest.mark.parametrize("field", ["id", "sha256", "width", "height", "captions"])
    @pytest.mark.parametrize("value", [None, "", True, 1.5, -1, 0, [], ["a", ""], "x" * 64, {}])
    def test_wrong_values_are_named(self, field: str, value: object):
        if field == "id" and value == "x" * 64:
            value = 64
        lines = self.index.to_jsonl().decode().split("\n")
        lines[2] = json.dumps({**json.loads(lines[2]), field: value})
        with pytest.raises(DataError, match=f"line 3: {field} is"):
            Index.from_jsonl("\n".join(lines).encode())

    def test_missing_and_unknown_fields(self):
        lines = self.index.to_jsonl().decode().split("\n")
        lines[1] = lines[1].replace('"width"', '"breadth"')
        with pytest.raises(DataError, match=r"line 2: has the fields \['breadth'"):
            Index.from_jsonl("\n".join(lines).encode())

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (lambda data: b"", "ends in the middle"),
            (lambda data: data[:-1], "ends in the middle"),
            (lambda data: data[: len(data) // 2], "ends in the middle|not UTF-8"),
            (lambda data: b"".join(data.splitlines(keepends=True)[:-1]), "promises 3 pictures, 2 follow"),
            (lambda data: data.replace(b'"sdjob_index":1', b'"sdjob_index":3'), "version 3 is not 1 or 2"),
            (lambda data: data.replace(b'"sdjob_index":1', b'"sdjob_index":2'), r"line 2: has the fields \['captions'"),
            (lambda data: b"".join(data.splitlines(keepends=True)[1:]), "version None is not 1"),
            (lambda data: b"[]\n", "line 1: is not an object"),
            (lambda data: data + b"{\n", "line 5: is not JSON"),
            (lambda data: data.replace("größe 1".encode(), b"\xff"), "line 3: is not UTF-8"),
            (lambda data: data.replace("größe 1".encode(), "größe 0".encode()), "stands twice"),
        ],
    )
    def test_damage(self, damage, says: str):
        with pytest.raises(DataError, match=says):
            Index.from_jsonl(damage(self.index.to_jsonl()))

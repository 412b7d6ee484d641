"""Image folders as they lie on disks: hidden files, links that lead out, caches of the Hub."""

import os
from pathlib import Path

import pytest

from sdjob.core.errors import DataError, DeniedError, MissingError
from unit.data.image_folders import captions, draw, records, write_jsonl


class TestFolder:
    def test_what_is_left_out(self, tmp_path: Path):
        draw(tmp_path, "a.png", ".hidden.png", ".git/b.png", "__MACOSX/c.png", "x/__MACOSX/._d.png")
        for name in ("notes.md", "Thumbs.db", "movie.mp4"):
            (tmp_path / name).write_text("x", encoding="utf-8")
        assert list(captions(tmp_path)) == ["a.png"]

    @pytest.mark.parametrize("extension", ["png", "PNG", "jpg", "JPEG", "jfif", "webp", "avif", "bmp", "gif", "tif", "ppm"])
    def test_extensions(self, tmp_path: Path, extension: str):
        draw(tmp_path, f"a.{extension}")
        assert list(captions(tmp_path)) == [f"a.{extension}"]

    def test_order_is_that_of_the_bytes(self, tmp_path: Path):
        names = ["\U0001f600.png", "\uff21.png", "a/z.png", "a.png", "B.png", "ä.png"]
        draw(tmp_path, *names)
        # UTF-16 would put the emoji before the full-width letter, and most locales "a" before "B".
        assert list(captions(tmp_path)) == ["B.png", "a.png", "a/z.png", "ä.png", "\uff21.png", "\U0001f600.png"]

    def test_a_name_that_is_not_utf8_is_still_a_record(self, tmp_path: Path):
        draw(tmp_path, os.fsdecode(b"caf\xe9.png"), "z.png")
        assert [os.fsencode(record.id) for record in records(tmp_path)] == [b"caf\xe9.png", b"z.png"]

    def test_empty_folder(self, tmp_path: Path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "metadata.jsonl").write_text("\n", encoding="utf-8")
        with pytest.raises(DataError, match="holds no pictures"):
            records(tmp_path)

    def test_missing_folder(self, tmp_path: Path):
        with pytest.raises(MissingError, match="does not exist"):
            records(tmp_path / "nowhere")

    def test_a_file_for_a_folder(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        with pytest.raises(DataError, match="is a file"):
            records(tmp_path / "a.png")

    def test_an_unreadable_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def refuse(path: Path) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("sdjob.data.folder.os.scandir", refuse)
        with pytest.raises(DeniedError, match="may not be read"):
            records(tmp_path)


class TestEscapes:
    @pytest.mark.parametrize("path", ["../secret.png", "x/../../secret.png", "/etc/secret.png", "..\\secret.png", ".."])
    def test_a_path_that_leaves_the_folder(self, tmp_path: Path, path: str):
        folder = tmp_path / "pictures"
        draw(folder, "a.png")
        write_jsonl(folder, {"file_name": path, "text": "s"})
        with pytest.raises(DataError, match="leaves the folder") as caught:
            records(folder)
        assert caught.value.where == f"{folder / 'metadata.jsonl'}:1"

    def test_a_sub_folder_may_look_up_but_not_out(self, tmp_path: Path):
        folder = tmp_path / "pictures"
        draw(folder, "a.png")
        write_jsonl(folder / "meta", {"file_name": "../a.png", "text": "a"})
        assert captions(folder) == {"a.png": ("a",)}
        write_jsonl(folder / "meta", {"file_name": "../../a.png", "text": "a"})
        with pytest.raises(DataError, match="leaves the folder"):
            records(folder)

    def test_links_inside_are_followed(self, tmp_path: Path):
        draw(tmp_path, "x/a.png")
        (tmp_path / "b.png").symlink_to("x/a.png")
        (tmp_path / "y").symlink_to("x")
        assert list(captions(tmp_path)) == ["b.png", "x/a.png", "y/a.png"]

    def test_the_folder_itself_may_be_a_link(self, tmp_path: Path):
        draw(tmp_path / "real", "a.png")
        (tmp_path / "link").symlink_to("real")
        (tmp_path / "real/b.png").symlink_to("a.png")
        assert list(captions(tmp_path / "link")) == ["a.png", "b.png"]

    @pytest.mark.parametrize("name", ["b.png", "folder", "a.txt", "metadata.csv"])
    def test_a_link_to_outside_is_refused(self, tmp_path: Path, name: str):
        folder = tmp_path / "pictures"
        draw(folder, "a.png")
        (folder / name).symlink_to(tmp_path)
        with pytest.raises(DataError, match="outside the folder"):
            records(folder)

    def test_a_row_through_a_hidden_link_to_outside_is_refused(self, tmp_path: Path):
        folder = tmp_path / "pictures"
        draw(tmp_path, "secret.png", "pictures/a.png")
        (folder / ".up").symlink_to(tmp_path)
        write_jsonl(folder, {"file_name": ".up/secret.png", "text": "s"})
        with pytest.raises(DataError, match="outside the folder"):
            records(folder)

    def test_a_sibling_with_the_same_beginning_is_outside(self, tmp_path: Path):
        draw(tmp_path, "pictures/a.png", "pictures-2/b.png")
        (tmp_path / "pictures/b.png").symlink_to(tmp_path / "pictures-2/b.png")
        with pytest.raises(DataError, match="outside the folder"):
            records(tmp_path / "pictures")

    def test_circles_end(self, tmp_path: Path):
        draw(tmp_path, "x/a.png")
        (tmp_path / "x/up").symlink_to("..")
        (tmp_path / "x/self.png").symlink_to("self.png")
        assert list(captions(tmp_path)) == ["x/a.png", "x/self.png"]

    def test_a_dangling_link_is_a_record(self, tmp_path: Path):
        draw(tmp_path, "a.png")
        (tmp_path / "b.png").symlink_to("gone.png")
        assert list(captions(tmp_path)) == ["a.png", "b.png"]


class TestHubCache:
    """snapshots/COMMIT/file is a link to ../../blobs/HASH, as people have it on disk."""

    @pytest.fixture
    def snapshot(self, tmp_path: Path) -> Path:
        repository = tmp_path / "hub/datasets--me--cats"
        draw(repository / "blobs", "0123")
        folder = repository / "snapshots/abcdef"
        folder.mkdir(parents=True)
        (folder / "a.png").symlink_to("../../blobs/0123")
        return folder

    def test_links_into_the_repository_are_followed(self, snapshot: Path):
        (snapshot / "sub").mkdir()
        (snapshot / "sub/b.png").symlink_to("../../../blobs/0123")
        assert list(captions(snapshot)) == ["a.png", "sub/b.png"]
        assert list(captions(snapshot / "sub")) == ["b.png"]

    def test_the_snapshot_itself_may_be_reached_through_a_link(self, snapshot: Path, tmp_path: Path):
        (tmp_path / "here").symlink_to(snapshot)
        assert list(captions(tmp_path / "here")) == ["a.png"]

    @pytest.mark.parametrize("target", ["../../../datasets--me--dogs/blobs/1", "../../../../secret.png", "/etc/hosts"])
    def test_links_out_of_the_repository_are_refused(self, snapshot: Path, target: str):
        (snapshot / "b.png").symlink_to(target)
        with pytest.raises(DataError, match="outside the folder"):
            records(snapshot)

    @pytest.mark.parametrize("name", ["mine", "datasets-me"])
    def test_only_the_caches_folders_count(self, tmp_path: Path, name: str):
        draw(tmp_path / name / "blobs", "0123")
        folder = tmp_path / name / "snapshots/abcdef"
        folder.mkdir(parents=True)
        (folder / "a.png").symlink_to("../../blobs/0123")
        with pytest.raises(DataError, match="outside the folder"):
            records(folder)

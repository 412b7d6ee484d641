from pathlib import Path
from types import SimpleNamespace

import pytest

from sdjob.job.doctor import scratch as module
from sdjob.job.doctor.scratch import file_system, nearest_folder, room_for, scratch

GIB = 2**30
DISK = "/dev/sda1 / ext4 rw 0 0\n"


@pytest.fixture
def disk(monkeypatch):
    def has(*, free_bytes, files=10**7, free_files=10**6):
        status = SimpleNamespace(f_bavail=free_bytes // 4096, f_frsize=4096, f_files=files, f_favail=free_files)
        monkeypatch.setattr(module.os, "statvfs", lambda _: status)

    has(free_bytes=99 * GIB)
    monkeypatch.setattr(module, "file_system", lambda _: "ext4")
    return has


def told(findings):
    return [(finding.state, finding.what) for finding in findings]


def test_a_good_one_is_left_as_it_was(disk, tmp_path):
    assert told(scratch(tmp_path)) == [("ok", f"{tmp_path} can be written."), ("ok", "99.0 GiB are free.")]
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_not_made_yet_is_not_made(disk, tmp_path):
    assert f"({tmp_path} is there; the rest is made by the first run)" in told(scratch(tmp_path / "a/b"))[0][1]
    assert list(tmp_path.iterdir()) == []


def test_little_room(disk, tmp_path):
    disk(free_bytes=2 * GIB)
    assert told(scratch(tmp_path))[1] == ("warning", "2.0 GiB are free.")


def test_few_inodes(disk, tmp_path):
    disk(free_bytes=99 * GIB, free_files=12)
    assert told(scratch(tmp_path))[1] == ("warning", "99.0 GiB are free. Only 12 more files can be made.")
    disk(free_bytes=99 * GIB, files=0, free_files=0)  # btrfs
    assert told(scratch(tmp_path))[1][0] == "ok"


def test_memory_that_looks_like_a_disk(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "file_system", lambda _: "tmpfs")
    state, what = told(scratch(tmp_path))[2]
    assert (state, what.partition(":")[0]) == ("warning", f"{tmp_path} is memory (tmpfs)")


def test_one_that_cannot_be_written_is_74(disk, tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.tempfile, "TemporaryFile", refuse)
    finding = next(iter(scratch(tmp_path)))
    assert (finding.state, finding.exit_code, finding.where) == ("failed", 74, str(tmp_path))
    assert "Permission denied" in finding.what
    assert "SDJOB_SCRATCH" in finding.next_step


def test_this_machines_own_mounts():
    assert file_system(Path("/proc/self")) == "proc"


def test_the_nearest_mount_counts_and_the_last_of_two(tmp_path):
    mounts = tmp_path / "mounts"
    folder = tmp_path / "a b"
    folder.mkdir()
    spelled = str(folder).replace(" ", "\\040")
    mounts.write_text(
        f"{DISK}x {spelled} ext4 rw 0 0\nx {spelled} tmpfs rw 0 0\nx {spelled}/c xfs rw 0 0\nx {tmp_path}/a nfs rw 0 0\n"
    )
    assert file_system(folder, mounts=mounts) == "tmpfs"
    assert file_system(tmp_path, mounts=mounts) == "ext4"


class TestRoomForTheJob:
    def test_nothing_to_fetch_is_no_line(self, disk, tmp_path):
        assert list(room_for({}, root=tmp_path)) == []

    def test_enough(self, disk, tmp_path):
        (finding,) = room_for({"model.source": 4 * GIB, "data.source": GIB}, root=tmp_path)
        assert finding.state == "ok"
        assert finding.what == "5.0 GiB are to be fetched (model.source 4.0 GiB, data.source 1.0 GiB), 99.0 GiB are free."

    def test_too_little_is_74(self, disk, tmp_path):
        disk(free_bytes=GIB)
        (finding,) = room_for({"model.source": 4 * GIB}, root=tmp_path / "not-made")
        assert (finding.state, finding.exit_code) == ("failed", 74)

    def test_what_was_fetched_before_counts(self, disk, tmp_path):
        disk(free_bytes=0)
        (tmp_path / "models/key/unet").mkdir(parents=True)
        (tmp_path / "models/key/unet/weights").write_bytes(b"x" * 1000)
        assert next(iter(room_for({"model.source": 1000}, root=tmp_path))).state == "ok"
        assert next(iter(room_for({"model.source": 1001}, root=tmp_path))).state == "failed"


def test_the_nearest_folder_of_a_relative_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert nearest_folder(Path("x/y")) == tmp_path

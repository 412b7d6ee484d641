"""Scratch folders of attempts: kept while their process lives, swept when it is dead."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from sdjob.core import owned
from sdjob.core.errors import StorageError
from sdjob.core.owned import LOCK, sweep
from sdjob.job.scratch import attempt_folder, run_folder

HOLD = """
import sys, pathlib
from sdjob.job.scratch import attempt_folder
with attempt_folder(pathlib.Path(sys.argv[1]), epoch=1, nonce="other") as folder:
    (folder / "state").write_text("precious")
    print(folder, flush=True)
    sys.stdin.read()
"""

LIST_OPEN_FILES = """
import os
for name in os.listdir("/proc/self/fd"):
    if os.path.exists(f"/proc/self/fd/{name}"):
        print(os.readlink(f"/proc/self/fd/{name}"))
"""


@pytest.fixture
def other(tmp_path):
    """Another process's attempt on this machine."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.folder = tmp_path / process.stdout.readline().strip()
    yield process
    process.kill()
    process.communicate()


def test_a_living_attempts_folder_is_kept(tmp_path, other):
    with attempt_folder(tmp_path, epoch=2, nonce="mine") as mine:
        assert (other.folder / "state").read_text() == "precious"
        assert mine.name == "attempt-0002-mine"
    assert not mine.exists()
    assert other.folder.exists()


def test_a_dead_attempts_folder_is_swept(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert other.folder.exists(), "nobody has tidied up yet"
    with attempt_folder(tmp_path, epoch=2, nonce="mine") as mine:
        assert sorted(tmp_path.iterdir()) == [mine]


def test_an_attempt_that_ends_well_leaves_nothing(tmp_path, other):
    other.communicate("")
    assert other.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_an_attempt_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), attempt_folder(tmp_path, epoch=1, nonce="mine"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_its_own_children_do_not_hold_the_lock(tmp_path):
    """A trainer that outlived its parent for a moment must not keep the folder from being swept."""
    with attempt_folder(tmp_path, epoch=1, nonce="mine") as folder:
        inherited = subprocess.run(
            [sys.executable, "-c", LIST_OPEN_FILES], capture_output=True, text=True, check=True, close_fds=False
        )
        assert str(folder / LOCK) not in inherited.stdout


def test_two_sweeps_at_once(tmp_path, monkeypatch):
    """The folder is gone between one's look and its lock."""
    (tmp_path / "attempt-0001-dead").mkdir()
    monkeypatch.setattr(owned.os, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError()))
    sweep(tmp_path, pattern="attempt-*")


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "models").mkdir()
    sweep(tmp_path, pattern="attempt-*")
    assert (tmp_path / "models").is_dir()


def test_the_runs_folder_is_for_this_user_alone(tmp_path):
    folder = run_folder(tmp_path / "root", key="abc")
    assert folder == tmp_path / "root/abc"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert run_folder(tmp_path / "root", key="abc") == folder


def test_a_root_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/abc: cannot make the scratch folder.*or SDJOB_SCRATCH"):
        run_folder(tmp_path / "file", key="abc")

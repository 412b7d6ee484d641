"""Orphans that come to us are collected, and nobody's exit code is lost. In a process that the kernel gives orphans to, as it
does to the first process of a container (PR_SET_CHILD_SUBREAPER)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdjob.core import reap

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="zombies of others come to us in Linux' containers alone")

ADOPTER = """
import ctypes, os, subprocess, sys
from sdjob.core.proc import start
from sdjob.core.reap import Reaper, zombies
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
ORPHAN = "import os; child = os.fork(); print(child or '', flush=True) if child else None; os._exit(0)"
orphan = int(subprocess.run([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True).stdout)
ours = start([sys.executable, "-c", "raise SystemExit(7)"], environment=os.environ)
other = subprocess.Popen([sys.executable, "-c", "raise SystemExit(9)"])
def seen(): return {zombie.pid for zombie in zombies(os.getpid())}
while seen() < {orphan, ours.process.pid, other.pid}: pass
reaper = Reaper()
print(reaper.turn())
other.wait()
print(reaper.turn() == [orphan], orphan in seen(), ours.process.pid in seen())
print(reaper.turn(), ours.process.wait(), other.returncode)
"""


def test_orphans_are_collected_and_no_exit_code_is_lost():
    told = subprocess.run([sys.executable, "-c", ADOPTER], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert told.stdout.splitlines() == ["[]", "True False True", "[] 7 9"]


def test_a_name_may_hold_brackets_and_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reap, "PROC", tmp_path)
    for pid, line in {
        10: "10 (a) Z 5 b) Z 5 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 777 0",
        11: "11 (living) S 5 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 778 0",
        12: "12 (of others) Z 6 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 779 0",
    }.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(line)
    (tmp_path / "meminfo").write_text("")
    (tmp_path / "13").mkdir()  # ended meanwhile
    assert reap.zombies(5) == {reap.Zombie(10, "777")}


def test_only_the_first_process_collects(monkeypatch: pytest.MonkeyPatch):
    started = []
    monkeypatch.setattr("threading.Thread.start", lambda self: started.append(self.name))
    reap.reap_as_first_process()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    reap.reap_as_first_process()
    assert started == ["reaper"]

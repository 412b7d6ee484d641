"""How old a process is."""

import subprocess
import sys

import pytest

from sdjob.core import clock
from sdjob.core.clock import process_age_s


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_age_is_that_of_the_process_itself():
    ask = "import time; time.sleep(0.3); from sdjob.core.clock import process_age_s; print(process_age_s())"
    told = subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True)
    assert 0.3 <= float(told.stdout) < 300, "and not the machine's, or its parent's"


def test_without_proc_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(clock, "STAT", tmp_path / "none")
    assert process_age_s() == 0.0

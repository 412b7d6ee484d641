"""Children that neither outlive their parent nor hear the terminal's signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdjob.core.proc import start

CHILD = """
import os, sys, time
from sdjob.core.channel import inherited_channel
channel = inherited_channel()
channel.send({"pid": os.getpid()})
for message in channel: channel.send({"heard": message})
time.sleep(600)  # although the channel has ended
"""
PARENT = """
import os, sys, time
from sdjob.core.proc import start
child = start([sys.executable, "-c", sys.argv[1]], environment=os.environ)
print(child.channel.receive()[0]["pid"], flush=True)
time.sleep(600)
"""


@pytest.fixture
def child():
    made = start([sys.executable, "-c", CHILD], environment=os.environ)
    assert made.channel.receive() == [{"pid": made.process.pid}]
    yield made
    made.kill()
    made.channel.close()


def is_running(pid):
    """Not gone, and not a zombie that its new parent has yet to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's; elsewhere the channel's end must do")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent(number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    with parent:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        os.kill(parent.pid, number)
        parent.wait()
        deadline = time.monotonic() + 60  # the kernel's signal comes at once; this is a limit for a hang
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_child_hears_no_stop_signal(child, number):
    os.kill(child.process.pid, number)
    child.channel.send({"still": "there"})
    assert child.channel.receive() == [{"heard": {"still": "there"}}]
    assert child.exit_code is None


def test_kill_leaves_no_zombie(child):
    child.kill()
    assert child.exit_code == -signal.SIGKILL
    assert not Path(f"/proc/{child.process.pid}").exists()
    child.kill()  # again is no error


def test_the_end_of_a_child_is_the_end_of_its_channel():
    made = start([sys.executable, "-c", "import sys; sys.exit(3)"], environment=os.environ)
    assert made.channel.receive() is None
    assert made.process.wait() == 3
    assert made.exit_code == 3
    made.channel.close()


def test_stdout_stays_free_for_results():
    """What a child prints goes to our stderr."""
    program = (
        "import os, sys; from sdjob.core.proc import start; "
        "c = start([sys.executable, '-c', 'print(\"chatter\")'], environment=os.environ); c.process.wait(); print('result')"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "result\n"
    assert "chatter" in run.stderr


def test_a_child_has_no_keyboard(child):
    assert Path(f"/proc/{child.process.pid}/fd/0").readlink() == Path("/dev/null")

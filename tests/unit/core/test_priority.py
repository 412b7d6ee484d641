"""A thread that gives way: itself and what it starts, and nobody else."""

import os
import sys
import threading

import pytest

from sdjob.core.priority import LOWEST, give_way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a niceness is a whole process's elsewhere")


def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def in_thread(action):
    """What `action` returns on a thread of its own."""
    said = []
    thread = threading.Thread(target=lambda: said.append(action()))
    thread.start()
    thread.join()
    return said[0]


def test_the_thread_that_asks_waits_and_no_other():
    before = niceness()

    def given():
        give_way()
        return niceness()

    assert in_thread(given) == LOWEST
    assert in_thread(niceness) == niceness() == before != LOWEST


def test_what_it_starts_waits_too():
    def given():
        give_way()
        return in_thread(niceness)

    assert in_thread(given) == LOWEST

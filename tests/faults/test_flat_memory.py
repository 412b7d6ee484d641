"""Hundreds of saves leave nothing behind: the memory of parent and trainer after 500 is what it was after 100."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from fakes.blows import start_small, trainers_of
from fakes.running import Running

FEW, MANY = 100, 500
# Of each save there stay its two slots of the log and the names of the blobs that were pruned, some 2 KiB: 0.8 MiB here. The
# interpreter's own table of names (pathlib interns each part of a path) doubles on the way, to 1.9 MiB. Were the copies of
# 400 saves kept, 19 MiB would be there.
MOST_KIB = 4 * 1024


def peak_kib(pid: int) -> int:
    """The most that was resident so far (https://man7.org/linux/man-pages/man5/proc_pid_status.5.html, VmHWM)."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


def peaks(running: Running) -> dict[str, int]:
    [trainer] = trainers_of(running.pid)
    return {"parent": peak_kib(running.pid), "trainer": peak_kib(trainer)}


@pytest.mark.full_matrix
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_memory_is_flat_over_500_saves(kind, request, workshop, tmp_path):
    to, environment = str(tmp_path / "job/run"), {}
    if kind == "s3":
        server = request.getfixturevalue("seaweed")
        to, environment = f"s3://{server.new_bucket()}/run", server.environment
    fields: dict[str, Any] = {"train__steps": 10**5, "checkpoint__every_steps": 5, "checkpoint__keep": 2}
    job = workshop.job(tmp_path / "job", validation=None, publish=[], checkpoint__to=to, **fields)
    running = start_small(job, environment=environment)
    step, seen = 0, {}
    for count in range(1, MANY + 1):
        step = running.wait_for("commit", step=lambda step, last=step: step > last)["step"]
        if count in {FEW, MANY}:
            seen[count] = peaks(running)
    running.signal(signal.SIGTERM)
    assert running.end().code == 75
    grown = {process: seen[MANY][process] - seen[FEW][process] for process in seen[FEW]}
    assert max(grown.values()) <= MOST_KIB, f"{grown} KiB: {seen}"

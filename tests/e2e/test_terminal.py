"""`sdjob run` as a person sees it on a terminal, and as a pipe does. The trainer is the small one: nothing of it is looked at."""

import os
import re
import subprocess
import sys

import pytest

from fakes.blows import TESTS
from fakes.terminal import terminal

COLUMNS = 80
LINE = re.compile(r"\[#*\.*\] (\d+)/400  loss \d+\.\d{4}  \d+:\d\d left  [\d.]+ images/s  commit \d+:\d\d ago")
PLAIN = re.compile(r"\[#*\.*\] step \d+/400  loss ")


@pytest.fixture
def job(workshop, tmp_path):
    return workshop.job(tmp_path / "job", train__steps=400, checkpoint__every_steps=50, validation=None, publish=[])


def run(job, *, stderr, log: str = "auto") -> None:
    command = [sys.executable, "-m", "fakes.small_run", "run", "--log", log, str(job.file)]
    environment = {**os.environ, "SDJOB_SCRATCH": str(job.scratch), "PYTHONPATH": str(TESTS)}
    subprocess.run(command, cwd=job.folder, env=environment, stdin=subprocess.DEVNULL, stderr=stderr, check=True, timeout=300)


def test_on_a_terminal_one_line_is_drawn_again(job):
    with terminal(columns=COLUMNS) as there:
        run(job, stderr=there.stream)
    drawn = [found[1] for found in LINE.finditer(there.text)]
    assert drawn
    assert drawn == sorted(drawn, key=int)
    seen = there.seen()
    assert not [line for line in seen if LINE.search(line)], "the line gives way to what stays"
    assert seen[-1].startswith("tiny is done: step 400")


def test_a_pipe_gets_plain_lines(job, tmp_path):
    with (tmp_path / "log").open("w") as file:
        run(job, stderr=file, log="text")
    lines = (tmp_path / "log").read_text().split("\n")
    assert "\r" not in "".join(lines)
    assert "\x1b" not in "".join(lines)
    assert lines[-2].startswith("tiny is done: step 400")
    steps = [line for line in lines if PLAIN.match(line)]
    assert steps[0].startswith(f"[{'.' * 24}] step 1/400  loss ")
    assert len(steps) < 100, "one now and then"

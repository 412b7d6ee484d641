"""A gang of `fakes.rank` processes, started with the environment that the parent gives its trainers."""

import subprocess
import sys
from pathlib import Path

from sdjob.job.launch import GangShape, trainer_commands
from sdjob.job.nodes.interface import free_port
from sdjob.spec.task import write_task

TESTS = Path(__file__).parents[1]


def run_gang(task, out, *, ranks, start, stop, checkpoint=None):
    out.mkdir()
    write_task(task, out / "task.json")
    shape = GangShape(
        backend="torch", num_processes=ranks, devices=1, device="cpu", threads=1, deterministic=True, port=free_port()
    )
    paths = ":".join([*sys.path, str(TESTS), str(TESTS.parent / "jobspecs/quickstart")])  # the very package that is under test
    arguments = [str(out / "task.json"), str(out), str(start), str(stop), *([str(checkpoint)] if checkpoint else [])]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "fakes.rank", *arguments],
            env={**command.environment, "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
        )
        for command in trainer_commands(out / "task.json", shape=shape, environment={"PATH": "/usr/bin:/bin"})
    ]
    words = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, b"\n".join(words).decode()
    return out

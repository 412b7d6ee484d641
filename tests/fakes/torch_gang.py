"""A gang of `fakes.rank` processes, started with the environment that the parent gives its trainers."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fakes.rank import THEN
from sdjob.job.launch import GangShape, trainer_commands
from sdjob.job.nodes.interface import free_port
from sdjob.spec.task import TrainTask, write_task

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Phase:
    """One trainer of each process, from one step to another."""

    task: TrainTask
    out: Path
    start: int
    stop: int
    checkpoint: Path | None = None

    def written(self) -> list[str]:
        """Its task on disk, and the words that name it."""
        self.out.mkdir()
        write_task(self.task, self.out / "task.json")
        checkpoint = [str(self.checkpoint)] if self.checkpoint else []
        return [str(self.out / "task.json"), str(self.out), str(self.start), str(self.stop), *checkpoint]


def run_gang(*phases: Phase, ranks: int) -> None:
    """The phases one after the other, in the same processes."""
    words = [word for phase in phases for word in (THEN, *phase.written())][1:]
    shape = GangShape(
        backend="torch", num_processes=ranks, devices=1, device="cpu", threads=1, deterministic=True, port=free_port()
    )
    paths = ":".join([*sys.path, str(TESTS), str(TESTS.parent / "jobspecs/quickstart")])  # the very package that is under test
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "fakes.rank", *words],
            env={**command.environment, **command.task["environment"], "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
        )
        for command in trainer_commands(Path(words[0]), shape=shape, environment={"PATH": "/usr/bin:/bin"})
    ]
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, b"\n".join(told).decode()

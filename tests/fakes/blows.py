"""Runs that are struck at random, again and again, until they are done: with SIGKILL, SIGTERM, SIGSTOP, as any machine may.

When a blow falls is chosen by what the run has said so far and a short moment more, so that it falls everywhere in an attempt's
life, however fast the machine is.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fakes.processes import command_of, parent_of
from fakes.running import Ended, Job, Running

Blow = Literal["kill the parent", "kill the trainer", "stop", "stop, then kill", "sleep beside another"]
BLOWS: tuple[Blow, ...] = ("kill the parent", "kill the trainer", "stop", "stop, then kill", "sleep beside another")
ROW = "blows"  # a test's property: [kind of place, blow -> how often it fell]
TRAINERS = (b"fakes.small_trainer", b"sdjob.train_torch")
MOST_BLOWS = 40  # a run of these is done long before
LONGEST_MOMENT_S = 0.15
TESTS = Path(__file__).parent.parent
ENDINGS: dict[Blow, set[int]] = {
    "kill the parent": {-signal.SIGKILL},
    "kill the trainer": {70},
    "stop": {75, -signal.SIGTERM},  # before Python has a handler
    "stop, then kill": {-signal.SIGKILL, 75, -signal.SIGTERM},
    "sleep beside another": {76},
}


def start_small(job: Job, *, environment: Mapping[str, str], machine: str = "a", inside: Sequence[str] = ()) -> Running:
    """`sdjob run` with the small trainer."""
    return start(job, module="fakes.small_run", environment=environment, machine=machine, inside=inside)


def start(job: Job, *, module: str, environment: Mapping[str, str], machine: str, inside: Sequence[str] = ()) -> Running:
    """`sdjob run`; each machine has a scratch of its own."""
    command = [*inside, sys.executable, "-m", module, "run", "--log", "json", str(job.file)]
    own = {"SDJOB_SCRATCH": str(job.folder / f"machine-{machine}"), "PYTHONPATH": str(TESTS)}
    return Running.begin(command, folder=job.folder, environment={**environment, **own})


@dataclass
class Struck:
    """One job that is struck; `places` is what its processes need to reach where it keeps its run."""

    job: Job
    seed: int
    environment: Mapping[str, str]
    least: int = 5
    blows_of: Sequence[Blow] = BLOWS
    module: str = "fakes.small_run"
    """What is `sdjob` here."""
    longest_moment_s: float = LONGEST_MOMENT_S
    blows: Counter[Blow] = field(default_factory=Counter[Blow])
    attempts: int = 0
    newest: int = 0
    """The last step that an attempt said was committed."""

    def to_the_end(self) -> "Struck":
        """Struck at least so often where it lives long enough; then an attempt that nobody disturbs, or that finds it done."""
        rng = random.Random(self.seed)
        while sum(self.blows.values()) < self.least and self.attempts < MOST_BLOWS:
            blow = rng.choice(self.blows_of)
            if self._struck(blow, rng=rng):
                self.blows[blow] += 1
        ended = self._heard(self._start().end())
        assert ended.code == 0, ended.output
        return self

    def _heard(self, ended: Ended) -> Ended:
        """Nothing that was said to be committed is ever trained again."""
        assert all(event["start_step"] >= self.newest for event in ended.of("train")), f"{self.newest}\n{ended.output}"
        self.newest = max([self.newest, *ended.committed])
        return ended

    def _start(self) -> Running:
        """On the same machine as the one before, or on another whose scratch is empty."""
        self.attempts += 1
        machine = random.Random(f"{self.seed} {self.attempts}").choice("ab")
        return start(self.job, module=self.module, environment=self.environment, machine=machine)

    def _struck(self, blow: Blow, *, rng: random.Random) -> bool:
        """Whether the blow fell: a run that had ended before must have ended well."""
        running = self._start()
        running.wait_for_events(rng.choice((0, 1, 2, 3, 5, 8, 13)))
        time.sleep(rng.uniform(0.0, self.longest_moment_s))
        if running.process.poll() is not None:
            ended = self._heard(running.end())
            assert ended.code == 0, ended.output
            return False
        ended = self._strike(running, blow, rng=rng)
        assert ended.code in ENDINGS[blow] | {0}, f"{blow}: {ended.code}\n{ended.output}"
        if blow != "sleep beside another":
            self._heard(ended)
        return ended.code != 0

    def _strike(self, running: Running, blow: Blow, *, rng: random.Random) -> Ended:
        match blow:
            case "kill the parent":
                running.signal(signal.SIGKILL)
            case "kill the trainer":
                kill_trainer(running)
            case "stop" | "stop, then kill":
                running.signal(signal.SIGTERM)
                if blow == "stop, then kill":
                    time.sleep(rng.uniform(0.0, LONGEST_MOMENT_S))
                    running.signal(signal.SIGKILL)
            case "sleep beside another":
                running.wait_for_events(3)
                running.signal(signal.SIGSTOP)
                self._beside()
                running.signal(signal.SIGCONT)
        return running.end()

    def _beside(self) -> None:
        """What the sleeper committed before may not have been heard yet, so that it is not asked for here."""
        ended = self._start().end()
        assert ended.code == 0, ended.output
        self.newest = max([self.newest, *ended.committed])


def kill_trainer(running: Running) -> None:
    """Where it has one just now."""
    for pid in trainers_of(running.pid):
        os.kill(pid, signal.SIGKILL)


def trainers_of(parent: int) -> list[int]:
    return [
        int(p.name) for p in Path("/proc").glob("[0-9]*") if parent_of(p) == parent and any(t in command_of(p) for t in TRAINERS)
    ]

"""Trainer processes whose task is not known yet: they import their packages, which takes seconds, while this one still fetches,
restores and plans. They end with it (core/proc.py), and with whatever it fails at."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from sdjob.core.proc import Child, start
from sdjob.job.launch import Command, GangShape, early_commands


def started(command: Command) -> Child:
    """A process that waits for its task, once it has imported."""
    return start(command.argv, environment=command.environment)


@dataclass
class Standby:
    """All methods belong to the main thread. As a context it ends whoever still waits."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """What the trainers inherit: as it is now, whatever libraries of ours write into it later."""

    _waiting: list[tuple[Command, Child]] = field(default_factory=list[tuple[Command, Child]])

    def begin(self, shape: GangShape) -> None:
        for command in early_commands(shape=shape, environment=self.environment):
            self._waiting.append((command, started(command)))

    def take(self, command: Command) -> Child:
        """One that was started with the very environment that the task needs; else, as where an older commit names other threads
        than the newest did, a new one. One that has died meanwhile counts: its end is told as any trainer's."""
        while self._waiting:
            early, child = self._waiting.pop(0)
            if early == command:
                return child
            end(child)
        return started(command)

    def end(self) -> None:
        while self._waiting:
            end(self._waiting.pop()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()


def end(child: Child) -> None:
    child.kill()
    child.channel.close()

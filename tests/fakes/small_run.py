"""`sdjob` as it is, but for two things: its trainer is the small one, and it hurries where it would wait for others' sake."""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from sdjob.core.clock import SystemClock
from sdjob.job import launch

LONGEST_WAIT_S = 0.05  # between two tries, and before what was retired is deleted


def small_commands(*, shape: launch.GangShape, environment: Mapping[str, str]) -> list[launch.Command]:
    argv = (sys.executable, "-P", "-m", "fakes.small_trainer")
    return [replace(command, argv=argv) for command in real_commands(shape=shape, environment=environment)]


# Before anything imports them from there.
real_commands = launch.early_commands
launch.early_commands = small_commands

from sdjob.cli.main import main  # noqa: E402

if __name__ == "__main__":
    SystemClock.sleep = lambda self, seconds: time.sleep(min(seconds, LONGEST_WAIT_S))  # pyright: ignore[reportAttributeAccessIssue]
    sys.argv += ["--set", "train.cache=never"]  # the small trainer has no encoders
    sys.exit(main())

"""Child processes that never outlive their parent and never see the terminal's Ctrl-C."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sdjob.core.channel import ENVIRONMENT_NAME, Channel
from sdjob.core.reap import STARTED

# An ignored signal stays ignored over exec: stop requests reach such children through their channel alone.
DEAF = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/pr_set_pdeathsig.2const.html


@dataclass(frozen=True)
class Child:
    process: "subprocess.Popen[bytes]"
    channel: Channel

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: minus the signal that ended it."""
        return self.process.poll()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def start(argv: Sequence[str], *, environment: Mapping[str, str]) -> Child:
    """Starts a child with a channel to it. Its stdout joins our stderr: stdout is for results.

    Call it from the main thread: the kernel sends the death signal when the *thread* that forked ends.
    """
    child_read, parent_write = os.pipe()
    parent_read, child_write = os.pipe()
    process = subprocess.Popen(
        argv,
        env={**environment, ENVIRONMENT_NAME: f"{child_read},{child_write}"},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        pass_fds=(child_read, child_write),
        preexec_fn=_before_exec(os.getpid(), ignored=DEAF, on_death=signal.SIGKILL),  # noqa: PLW1509 (nothing but system calls)
    )
    STARTED.append(process)
    os.close(child_read)
    os.close(child_write)
    return Child(process, Channel(read_fd=parent_read, write_fd=parent_write))


def start_listening(argv: Sequence[str], *, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts a child that handles signals itself and has all of our streams, and these variables beside our own. It is in a
    process group of its own, so that the terminal's Ctrl-C reaches it through us alone, once; and it is asked to stop where we
    die. As `start`: from the main thread.
    """
    process = subprocess.Popen(
        argv,
        env={**os.environ, **environment},
        process_group=0,
        preexec_fn=_before_exec(os.getpid(), ignored=(), on_death=signal.SIGTERM),  # noqa: PLW1509 (as above)
    )
    STARTED.append(process)
    return process


def _before_exec(parent: int, *, ignored: Sequence[int], on_death: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def hook() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, on_death)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before prctl

    return hook

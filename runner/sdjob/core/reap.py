"""What the first process of a container owes the kernel: processes whose parents have died become its children, and stay zombies,
each with its number, until it collects them."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

REAP_S = 10.0
PROC = Path("/proc")

STARTED: "list[subprocess.Popen[bytes]]" = []
"""Children of our own, whose exit codes somebody waits for."""


@dataclass(frozen=True)
class Zombie:
    pid: int
    started: str
    """In the kernel's ticks: with it the number is never mistaken for a later process's."""


@dataclass
class Reaper:
    """Collects a zombie at the second sight: what `subprocess.run` waits for is gone by then."""

    _seen: set[Zombie] = field(default_factory=set[Zombie])

    def turn(self) -> list[int]:
        """The numbers of those that were collected."""
        found = zombies(os.getpid())
        ours = {child.pid for child in tuple(STARTED) if child.returncode is None}
        taken = [zombie.pid for zombie in found & self._seen if zombie.pid not in ours]
        for pid in taken:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue  # whoever started it was faster
        self._seen = found
        return taken


def zombies(parent: int) -> set[Zombie]:
    """https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    found: set[Zombie] = set()
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The second field is the name in brackets, which may hold anything.
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if fields[0] == "Z" and int(fields[1]) == parent:
            found.add(Zombie(int(entry.name), fields[19]))
    return found


def reap_as_first_process() -> None:
    """From now on, beside everything else; nothing where another process is the first."""
    if os.getpid() != 1:
        return

    def work() -> None:
        reaper = Reaper()
        while True:
            reaper.turn()
            time.sleep(REAP_S)

    threading.Thread(target=work, name="reaper", daemon=True).start()

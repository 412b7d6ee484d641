"""What a container may use: the limits of this process's control groups, of version 1 and 2.

Version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max, memory.max, memory.current); version 1:
https://docs.kernel.org/scheduler/sched-bwc.html and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MOUNTED = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
NO_LIMIT_BYTES = 2**60  # version 1 writes "no limit" as the largest multiple of a page that a signed number holds


@dataclass(frozen=True)
class MemoryLimit:
    limit_bytes: int
    used_bytes: int
    """Page cache included, of which the kernel gives back a part before it kills anybody."""


def cpu_quota(*, groups: Path = OWN_GROUPS, mounted: Path = MOUNTED) -> float | None:
    """Cores' worth of time, the tightest of the groups above this process; None where nothing limits it."""
    shares = [_share(folder) for folder in _folders("cpu", groups=groups, mounted=mounted)]
    return min((share for share in shares if share is not None), default=None)


def memory_limit(*, groups: Path = OWN_GROUPS, mounted: Path = MOUNTED) -> MemoryLimit | None:
    """The tightest of the groups above this process; None where nothing limits it."""
    limits = [_memory(folder) for folder in _folders("memory", groups=groups, mounted=mounted)]
    return min((limit for limit in limits if limit is not None), key=lambda limit: limit.limit_bytes, default=None)


def _folders(controller: str, *, groups: Path, mounted: Path) -> Iterator[Path]:
    """The process's own group and those above it. In a container the root is often the container's own group, whatever the
    path says, so folders that are not there are passed over."""
    for line in (_text(groups) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = mounted / controllers if controllers else mounted
        own = PurePosixPath(path.lstrip("/"))
        yield from (root / above for above in (own, *own.parents) if ".." not in above.parts)


def _share(folder: Path) -> float | None:
    if quota_and_period := _text(folder / "cpu.max"):
        quota, period = quota_and_period.split()
        return None if quota == "max" else int(quota) / int(period)
    quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _memory(folder: Path) -> MemoryLimit | None:
    for limit_file, used_file in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        limit, used = _text(folder / limit_file), _text(folder / used_file)
        if limit and used and limit != "max" and int(limit) < NO_LIMIT_BYTES:
            return MemoryLimit(int(limit), int(used))
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None

"""The log of a job, over all its pods: following goes on where the next pod begins, and where a connection breaks off."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil

from sdjob.cluster import paths
from sdjob.cluster.endings import Ending, ending_of
from sdjob.cluster.names import CONTAINER, Manifest, selector
from sdjob.cluster.objects import annotation, condition, container_state, label, name_of, text
from sdjob.cluster.refusals import UnreachableError
from sdjob.cluster.server import Server
from sdjob.cluster.submit import find
from sdjob.core.clock import Clock
from sdjob.core.errors import MissingError, SdjobError, UsageError

POLL_S = 2.0
OVERLAP_S = 5  # by which a log is asked for again: clocks differ, and what was shown is known by its time
INDEX = "batch.kubernetes.io/job-completion-index"
JOB_INDEX = "jobset.sigs.k8s.io/job-index"


@dataclass
class LogReader:
    name: str
    server: Server
    clock: Clock
    show: Callable[[str], None]
    """One line of the log."""

    tell: Callable[[str], None]
    """One line about the log."""

    rank: int = 0
    """Which pod of a gang."""

    _shown: set[str] = field(default_factory=set[str])
    """Lines with the newest times, as the server spells them."""
    _newest: str = ""

    def print_all(self, *, tail: int | None, every_attempt: bool) -> None:
        """What there is now."""
        pods = [pod for pod in self._pods() if started(pod)]
        if not pods:
            raise self._nothing()
        for pod in pods if every_attempt else pods[-1:]:
            if every_attempt:
                self.tell(f"--- {name_of(pod)}")
            for line in self._lines(pod, **({"tailLines": str(tail)} if tail is not None else {})):
                self.show(line)

    def follow(self, *, tail: int | None) -> None:
        """Until the job is done; raises what it ended with otherwise. Waits for the first pod, and for each next one."""
        followed: set[str] = set()
        while True:
            pods = [pod for pod in self._pods() if started(pod) and name_of(pod) not in followed]
            if pods:
                # Of pods that ended while nobody looked, the last one's log is the job's.
                pod = pods[-1]
                followed |= {name_of(one) for one in pods}
                self._follow_pod(pod, tail=tail if len(followed) == len(pods) else None)
                continue
            if self._is_over():
                return
            self.clock.sleep(POLL_S)

    def _follow_pod(self, pod: Manifest, *, tail: int | None) -> None:
        self.tell(f"--- {name_of(pod)}")
        self._newest, self._shown = "", set()
        query = {"tailLines": str(tail)} if tail is not None else {}
        while True:
            try:
                for line in self._lines(pod, follow="true", **query):
                    self.show(line)
            except UnreachableError:
                self.tell("--- the connection broke off; asking again")
                self.clock.sleep(POLL_S)
            except MissingError:
                return self.tell(f"--- {name_of(pod)} is gone")
            ending = self._ending(pod)
            if ending is not None:
                return self.tell(f"--- {name_of(pod)} ended: {ending.kind}, {ending.why}")
            query = self._since()

    def _since(self) -> dict[str, str]:
        if not self._newest:
            return {}
        passed_s = self.clock.unix_s() - unix_s(self._newest)
        return {"sinceSeconds": str(max(1, ceil(passed_s)) + OVERLAP_S)}

    def _ending(self, pod: Manifest) -> Ending | None:
        """A log may end a moment before its pod's end is known."""
        path = paths.pods(self.server.namespace, name_of(pod))
        for _ in range(3):
            now = self.server.get(path)
            if now is None:
                return Ending("gone", None, "it was removed")
            ending = ending_of(now)
            if ending is not None:
                return ending
            self.clock.sleep(POLL_S)
        return None

    def _lines(self, pod: Manifest, **query: str) -> Iterator[str]:
        """Each line once, without its time."""
        path = f"{paths.pods(self.server.namespace, name_of(pod))}/log"
        for stamped in self.server.lines(path, container=CONTAINER, timestamps="true", **query):
            time, _, line = stamped.partition(" ")
            if self._is_new(time, stamped):
                yield line

    def _is_new(self, time: str, stamped: str) -> bool:
        if time < self._newest or stamped in self._shown:
            return False
        if time > self._newest:
            self._newest, self._shown = time, set()
        self._shown.add(stamped)
        return True

    def _pods(self) -> list[Manifest]:
        found = self.server.list(paths.pods(self.server.namespace), selector=selector(self.name))
        of_rank = [pod for pod in found if rank_of(pod, pods=found) == self.rank]
        return sorted(of_rank, key=lambda pod: text(pod, "metadata", "creationTimestamp"))

    def _is_over(self) -> bool:
        """Raises the error that a failed job means."""
        workload = find(self.name, server=self.server)
        if workload is None:
            raise self._nothing()
        if condition(workload, "Complete") or condition(workload, "Completed"):
            return True
        failed = condition(workload, "Failed")
        if failed is not None:
            raise SdjobError(
                f"the job has failed: {text(failed, 'message') or text(failed, 'reason')}.",
                where=self.name,
                next_step="See `sdjob status`.",
            )
        return False

    def _nothing(self) -> SdjobError:
        if find(self.name, server=self.server) is None:
            return MissingError(
                f"there is no such job in namespace {self.server.namespace}.", where=self.name, next_step="See `sdjob list`."
            )
        return UsageError("no pod of it has started yet.", where=self.name, next_step="See `sdjob status`, or use --follow.")


def started(pod: Manifest) -> bool:
    return bool(container_state(pod, "running") or container_state(pod, "terminated")) or text(pod, "status", "phase") in {
        "Running",
        "Succeeded",
        "Failed",
    }


def rank_of(pod: Manifest, *, pods: list[Manifest]) -> int:
    """Over all Jobs of a gang: those of slice 0 first."""
    index = int(annotation(pod, INDEX) or label(pod, INDEX) or 0)
    largest = max((int(annotation(one, INDEX) or label(one, INDEX) or 0) for one in pods), default=0)
    return int(label(pod, JOB_INDEX) or annotation(pod, JOB_INDEX) or 0) * (largest + 1) + index


def unix_s(time: str) -> float:
    """Of RFC 3339 with nanoseconds, of which Python reads six digits."""
    seconds, _, fraction = time.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{(fraction or '0')[:6].ljust(6, '0')}+00:00").timestamp()

"""The machine's own notice that it is taken away, which not every cluster passes on as a SIGTERM: asked for on spot machines.

Only a cloud that answers is asked again; what it answers after that, nothing or nonsense included, never harms the training.
"""

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sdjob.core.log import Log
from sdjob.job.metadata import Ec2, Gce, Machine, MetadataError
from sdjob.job.stop import StopRequest
from sdjob.spec.run import RunSpec

FIRST_TRIES = 5  # a machine that has just started may be ready before its metadata server
BETWEEN_TRIES_S = 10.0


@dataclass
class NoticeWatch:
    """One turn after another, in a thread of their own."""

    candidates: Sequence[Machine]
    stop: StopRequest
    log: Log
    machine: Machine | None = None
    """The kind that has answered."""

    _told: set[str] = field(default_factory=set[str])
    _tries: int = 0

    def turn(self) -> float | None:
        """Asks once; how many seconds to wait before the next turn, None after the last."""
        if self.stop.requested:
            return None
        if self.machine is None:
            return self._look()
        try:
            why = self.machine.notice()
            if why is None:
                self._pass_on_news(self.machine)
        except MetadataError as error:
            self._tell("notice-unknown", f"the machine does not say whether it stays: {error}", once="unknown")
            return self.machine.every_s
        if why is None:
            return self.machine.every_s
        self.log.warning("notice", f"{why}: {self.stop.notice_s:g} s to save what there is", notice_s=self.stop.notice_s)
        self.stop.request(why=why)
        return None

    def _pass_on_news(self, machine: Machine) -> None:
        news = machine.news()
        if news is not None:
            self._tell("maintenance", f"{news}; training goes on, and the last commit stands", once=news)

    def _look(self) -> float | None:
        self._tries += 1
        for candidate in self.candidates:
            try:
                candidate.notice()
            except MetadataError:
                continue
            self.machine = candidate
            return 0.0
        if self._tries < FIRST_TRIES:
            return BETWEEN_TRIES_S
        self.log.event("notice-unwatched", "no cloud answers here: a stop request comes by SIGTERM alone")
        return None

    def _tell(self, kind: str, words: str, *, once: str) -> None:
        if once not in self._told:
            self._told.add(once)
            self.log.warning(kind, words)


@contextmanager
def notice_watched(run: RunSpec, *, stop: StopRequest, environment: Mapping[str, str], log: Log) -> Generator[None]:
    """While the block runs, where the job is for spot machines."""
    if not run.spot:
        yield
        return
    watch, over = NoticeWatch(candidates(environment), stop, log), threading.Event()

    def work() -> None:
        wait_s = watch.turn()
        while wait_s is not None and not over.wait(wait_s):
            wait_s = watch.turn()

    threading.Thread(target=work, name="notice", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def candidates(environment: Mapping[str, str]) -> list[Machine]:
    """The SDKs' own variables for other addresses hold here too."""
    found: list[Machine] = [Gce(environment["GCE_METADATA_HOST"]) if environment.get("GCE_METADATA_HOST") else Gce()]
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        address = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")
        found.append(Ec2(address.removeprefix("http://").rstrip("/")) if address else Ec2())
    return found

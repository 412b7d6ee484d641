"""The nodes of a gang as processes of one machine: each has scratch of its own, and they share the run's place alone."""

from dataclasses import dataclass, field

from fakes.running import Ended, Job, Running
from sdjob.job.nodes.interface import free_port

Overrides = tuple[str, ...]


@dataclass
class Nodes:
    job: Job
    count: int = 2
    environment: dict[str, str] = field(default_factory=dict)
    address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")

    def start(self, number: int, *overrides: str, environment: dict[str, str] | None = None) -> Running:
        gang = {
            "SDJOB_GANG_ADDRESS": self.address,
            "SDJOB_GANG_NODES": str(self.count),
            "SDJOB_GANG_NODE": str(number),
            "SDJOB_GANG_GRACE_S": "0",
            "SDJOB_SCRATCH": str(self.job.folder / f"scratch-{number}"),
        }
        return self.job.start(*overrides, environment={**gang, **self.environment, **(environment or {})})

    def start_all(self, *overrides: str) -> list[Running]:
        return [self.start(number, *overrides) for number in range(self.count)]

    def run(self, *overrides: str) -> list[Ended]:
        return [running.end() for running in self.start_all(*overrides)]

"""What is known of a job, gathered and not yet judged."""

from dataclasses import dataclass, field

from sdjob.cluster.names import Manifest
from sdjob.ledger.read import AttemptLedger
from sdjob.spec.job import JobSpec


@dataclass(frozen=True)
class Facts:
    name: str
    namespace: str
    workload: Manifest | None = None
    pods: list[Manifest] = field(default_factory=list[Manifest])
    """Oldest first."""
    events: dict[str, list[Manifest]] = field(default_factory=dict[str, list[Manifest]])
    """By the name of what they are about, oldest first."""
    queue_entry: Manifest | None = None
    job: JobSpec | None = None
    ledgers: list[AttemptLedger] = field(default_factory=list[AttemptLedger])
    ledger_note: str | None = None
    """Why the ledger was not read."""

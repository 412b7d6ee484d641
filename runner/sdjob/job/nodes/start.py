"""What node 0 has resolved for one start of the gang, and tells the others: a few numbers and hashes, never files.

Everything else a node reads and verifies by itself: the bucket has the checkpoint, the index and the pinned revisions.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sdjob.ckpt.engine import Claim, Restored
from sdjob.core.channel import Message
from sdjob.core.errors import SdjobError
from sdjob.job.resume import Resolution


@dataclass(frozen=True, kw_only=True)
class Start:
    epoch: int
    nonce: str
    """Of node 0's claim, by which a node sees that both read the same log."""

    total_steps: int
    threads: int
    identity: dict[str, Any] = field(default_factory=dict[str, Any])
    slot: int | None = None
    """Of the commit that node 0 chose and verified; None at a fresh start."""

    digest: str | None = None

    def fields(self) -> Message:
        return asdict(self)

    @staticmethod
    def of(message: Message) -> "Start":
        kinds: dict[str, tuple[type, ...]] = {
            "epoch": (int,),
            "nonce": (str,),
            "total_steps": (int,),
            "threads": (int,),
            "identity": (dict,),
            "slot": (int, type(None)),
            "digest": (str, type(None)),
        }
        wrong = [f.name for f in fields(Start) if type(message.get(f.name)) not in kinds[f.name]]
        if wrong:
            raise SdjobError(f"node 0 sent a start whose {', '.join(wrong)} cannot be read.")
        return Start(**{f.name: message[f.name] for f in fields(Start)})


def start_of(claim: Claim, resolution: Resolution, *, restored: Restored | None) -> Start:
    return Start(
        epoch=claim.epoch,
        nonce=claim.nonce,
        total_steps=resolution.total_steps,
        threads=resolution.threads,
        identity=resolution.identity,
        slot=restored.slot if restored else None,
        digest=restored.digest if restored else None,
    )

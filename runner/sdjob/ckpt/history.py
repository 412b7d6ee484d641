"""What a log says: a pure fold over its slots."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from sdjob.ckpt.slot import ClaimSlot, CommitSlot, DoneSlot, QuarantineSlot, RetireSlot, Slot

CommitState = Literal["live", "retired", "quarantined", "superseded", "stray"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DamagedSlot:
    """A slot whose bytes tell nothing. It may have been a claim, so it counts as an epoch; it may have been a commit, which
    is lost; a lost retire or quarantine is found again by the hashes of what it was about."""

    number: int
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedCommit:
    """`superseded`: the run went back past this step and committed it, or an earlier one, again.
    `stray`: written past a newer claim, which an honest store refuses; never restored."""

    slot: int
    epoch: int
    step: int
    digest: str
    manifest: str
    size_bytes: int
    time_s: float
    state: CommitState
    why: str | None = None


@dataclass
class _Fold:
    """The running values; `commits` by slot number, in the log's order; `live` the numbers of the live ones, steps rising."""

    epoch: int = 0
    epoch_bound: int = 0
    commits: dict[int, LoggedCommit] = field(default_factory=dict[int, LoggedCommit])
    live: list[int] = field(default_factory=list[int])
    done: DoneSlot | None = None
    claim: ClaimSlot | None = None


@dataclass(frozen=True)
class History:
    """A prefix of the log, slots 0 to `head`, and all that follows from it."""

    slots: tuple[Slot | DamagedSlot, ...] = ()

    def with_slot(self, slot: Slot | DamagedSlot) -> "History":
        return History((*self.slots, slot))

    @property
    def head(self) -> int:
        """The last slot's number, -1 for an empty log."""
        return len(self.slots) - 1

    @property
    def next_number(self) -> int:
        return len(self.slots)

    @property
    def epoch(self) -> int:
        """The largest that an intact slot shows; 0 before the first claim."""
        return self._fold.epoch

    @property
    def epoch_bound(self) -> int:
        """No claim in this prefix has a larger epoch, even if every damaged slot was one."""
        return self._fold.epoch_bound

    @property
    def last_claim(self) -> ClaimSlot | None:
        return self._fold.claim

    @property
    def claims(self) -> tuple[ClaimSlot, ...]:
        return tuple(slot for slot in self.slots if isinstance(slot, ClaimSlot))

    @property
    def damaged(self) -> tuple[DamagedSlot, ...]:
        return tuple(slot for slot in self.slots if isinstance(slot, DamagedSlot))

    @property
    def commits(self) -> tuple[LoggedCommit, ...]:
        """Every commit, oldest first, whatever became of it."""
        return tuple(self._fold.commits.values())

    @cached_property
    def live(self) -> tuple[LoggedCommit, ...]:
        """What may be restored, newest first. Steps fall strictly, since a commit supersedes all later steps before it."""
        return tuple(self._fold.commits[number] for number in reversed(self._fold.live))

    @property
    def done(self) -> DoneSlot | None:
        """The end of the run, unless it was re-opened by a commit since, or the commit that it names was found damaged."""
        return self._fold.done

    @property
    def ends_in_done(self) -> bool:
        return bool(self.slots) and isinstance(self.slots[-1], DoneSlot)

    @cached_property
    def _fold(self) -> _Fold:
        fold = _Fold()
        for slot in self.slots:
            _apply(slot, fold)
        return fold


def _apply(slot: Slot | DamagedSlot, fold: _Fold) -> None:
    if isinstance(slot, DamagedSlot):
        fold.epoch_bound += 1
        return
    stray = slot.epoch < fold.epoch
    fold.epoch = max(fold.epoch, slot.epoch)
    fold.epoch_bound = max(fold.epoch_bound, slot.epoch)
    match slot:
        case CommitSlot():
            _commit(slot, fold, stray=stray)
        case _ if stray:
            pass  # its writer had been fenced: it had no say any more
        case ClaimSlot():
            fold.claim = slot
        case RetireSlot():
            for number in slot.slots:
                _mark(number, fold, state="retired")
        case QuarantineSlot():
            _mark(slot.slot, fold, state="quarantined", why=slot.why)
        case DoneSlot():
            fold.done = slot
        case _:
            raise AssertionError(slot)


def _commit(slot: CommitSlot, fold: _Fold, *, stray: bool) -> None:
    if not stray:
        fold.done = None
        while fold.live and fold.commits[fold.live[-1]].step >= slot.step:
            _mark(fold.live[-1], fold, state="superseded")
        fold.live.append(slot.number)
    fold.commits[slot.number] = LoggedCommit(
        slot=slot.number,
        epoch=slot.epoch,
        step=slot.step,
        digest=slot.digest,
        manifest=slot.manifest,
        size_bytes=slot.size_bytes,
        time_s=slot.time_s,
        state="stray" if stray else "live",
    )


def _mark(number: int, fold: _Fold, *, state: CommitState, why: str | None = None) -> None:
    commit = fold.commits.get(number)
    if commit is None:
        return  # its own slot is damaged: there is nothing to restore anyway
    fold.commits[number] = replace(commit, state=state, why=why)
    if number in fold.live:
        fold.live.remove(number)
    if state == "quarantined" and fold.done is not None and fold.done.digest == commit.digest:
        fold.done = None

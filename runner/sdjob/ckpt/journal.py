"""The number line of slots in a store: read it from 0 to its end, append to it, notice a newer holder."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

from sdjob.ckpt.history import DamagedSlot, History
from sdjob.ckpt.slot import ClaimSlot, DamagedSlotError, Slot, Stamp, decode, encode, sealed, slot_key, slot_number, unsealed
from sdjob.core.clock import Clock
from sdjob.core.errors import DeniedError, FencedError, StorageError, UnsoundError
from sdjob.core.log import Log
from sdjob.store.base import ObjectMissingError
from sdjob.store.patient import PatientStore

Drafted = TypeVar("Drafted", bound=Slot)

HINT_KEY = "hint/head"
# A bucket answers a small read in some 30 ms: a week of commits a minute would take five minutes, one read after the other.
MANY_SLOTS = 64
READERS = 16
LIFECYCLE = "A lifecycle rule of the bucket, or a person, may have deleted it: exclude log/ and blob/ from such rules"


class Journal:
    """`history` is what has been read so far: always slots 0 to some number, without a gap."""

    def __init__(self, store: PatientStore, *, clock: Clock, log: Log, new_nonce: Callable[[], str]) -> None:
        self._store = store
        self._clock = clock
        self._new_nonce = new_nonce
        self._log = log
        self.history = History()

    def replay(self) -> History:
        """Reads the whole log anew. Raises UnsoundError where a slot is missing; only an empty place yields an empty history.

        Hint and listings come first, so that all they show was there before the reading began. They are only ever evidence
        that slots exist: each number is read up to the first that is absent, and no listing that is late, short or falsely
        empty can hide a slot.
        """
        named = [self._hinted(), *(slot_number(key) for key in self._store.keys("log/"))]
        last_named = max((number for number in named if number is not None), default=-1)
        has_blobs = last_named < 0 and bool(self._store.keys("blob/"))
        self.history = History()
        if last_named >= MANY_SLOTS:
            self._read_many(last_named)
        self.catch_up()
        if self.history.head < last_named:
            raise self._gap(last_named)
        if has_blobs and not self.history.slots:
            raise UnsoundError("there are blobs of a run, but its log is gone.", where=self._store.uri, next_step=LIFECYCLE + ".")
        return self.history

    def catch_up(self) -> None:
        """Reads on from where the history ends, up to the first number that is absent."""
        while (slot := self._slot_at(self.history.next_number)) is not None:
            self._take(slot)

    def _read_many(self, last_named: int) -> None:
        """Up to the last number that is known of, or to the first that is absent; several reads at a time, taken in order."""
        with ThreadPoolExecutor(READERS, thread_name_prefix="slots") as pool:
            for slot in pool.map(self._slot_at, range(last_named + 1)):
                if slot is None:
                    pool.shutdown(cancel_futures=True)
                    return
                self._take(slot)

    def _take(self, slot: Slot | DamagedSlot) -> None:
        if isinstance(slot, DamagedSlot):
            self._log.warning("slot_damaged", f"{self._store.uri}/{slot_key(slot.number)}: {slot.why}", slot=slot.number)
        self.history = self.history.with_slot(slot)

    def append(self, draft: Callable[[Stamp], Drafted], *, holder: ClaimSlot | None) -> Drafted:
        """Creates the next free slot, in the holder's epoch; without a holder in an epoch of its own, past all before it.

        A refusal is looked into before the next number is tried. Our own nonce: the slot is ours, its reply had been lost.
        Else all that others wrote is read, and a holder that finds a newer claim there raises FencedError.
        """
        nonce = self._new_nonce()
        while True:
            if holder is not None:  # before each try: what raised once must go on to raise, whoever calls again
                self.require_holder(holder)
            epoch = holder.epoch if holder else self.history.epoch_bound + 1
            number, time_s = self.history.next_number, round(self._clock.unix_s(), 3)
            slot = draft(Stamp(number=number, epoch=epoch, nonce=nonce, time_s=time_s))
            if self._create(slot):
                self.history = self.history.with_slot(slot)
                self._write_hint()
                return slot
            self.catch_up()

    def require_holder(self, claim: ClaimSlot) -> None:
        """FencedError where the history holds a newer claim; UnsoundError where a damaged slot might have been one."""
        if self.history.epoch > claim.epoch:
            raise _fenced(self.history.last_claim, where=self._store.uri)
        for damaged in self.history.damaged:
            if damaged.number > claim.number:
                raise UnsoundError(
                    f"{damaged.why} Another attempt may have claimed the run there, so this one may not go on.",
                    next_step="Run it again: a new attempt claims past the damage and goes on from the last commit.",
                )

    def _create(self, slot: Slot) -> bool:
        if self._store.create(slot_key(slot.number), encode(slot)):
            return True
        found = self._slot_at(slot.number)
        if found is None:
            raise StorageError(
                "the store refuses to create this slot, and yet has none there.",
                where=f"{self._store.uri}/{slot_key(slot.number)}",
                next_step="Run it again; `sdjob doctor` tests the store.",
            )
        return isinstance(found, Slot) and found.nonce == slot.nonce

    def _slot_at(self, number: int) -> Slot | DamagedSlot | None:
        """Bytes that do not fit their checksum are read once more, since the damage may be on the way."""
        damage: DamagedSlotError | None = None
        for _ in range(2):
            try:
                return decode(self._store.read(slot_key(number)), number=number)
            except ObjectMissingError:
                return None
            except DamagedSlotError as error:
                damage = error
        return DamagedSlot(number=number, why=str(damage))

    def _gap(self, last_named: int) -> UnsoundError:
        missing = self.history.next_number
        return UnsoundError(
            f"the log goes on to slot {last_named}, but slot {missing} is missing.",
            where=f"{self._store.uri}/{slot_key(missing)}",
            next_step=f"{LIFECYCLE}. Restore the object from a backup or a version, or start a new run in another place.",
        )

    def _hinted(self) -> int | None:
        """The hint's number. A hint that is absent or damaged says nothing: it is a cache, never trusted alone."""
        try:
            number = unsealed(self._store.read(HINT_KEY), where=HINT_KEY).get("number")
        except (ObjectMissingError, DamagedSlotError):
            return None
        return number if isinstance(number, int) else None

    def _write_hint(self) -> None:
        try:
            self._store.write(HINT_KEY, sealed({"number": self.history.head}))
        except (StorageError, DeniedError) as error:  # the slot stands already, and a stale hint harms nobody
            self._log.event("hint_not_written", f"The hint of the log's end was not written: {error}", slot=self.history.head)


def _fenced(winner: ClaimSlot | None, *, where: str) -> FencedError:
    who = "Another attempt"
    if winner is not None:
        when = datetime.fromtimestamp(winner.time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        who = f"Attempt {winner.attempt} on host {winner.host} (epoch {winner.epoch}, since {when})"
    return FencedError(
        f"{who} owns this run now; this attempt writes nothing more.",
        where=where,
        next_step="Nothing is lost: that attempt goes on from the last commit.",
    )

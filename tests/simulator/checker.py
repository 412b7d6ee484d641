"""The invariants, held against every effect at the moment when it happens.

order       slots are contiguous, epochs rise with claims, nobody writes past a newer claim, no nonce stands twice
whole       a commit's slot appears only where its manifest and all of its files are in the bucket, with the bytes that were
            snapshot; what an attempt is told is committed is in the log, once
kept        no file or manifest of a live commit is ever deleted, nothing of a newer epoch, never a slot; before each batch
            of deletions the end of the log was looked at
restored    the newest live commit as of the claim, byte for byte; older only where damage was done; never a fresh start
            while a commit is live
honest      an attempt ends with an error only where there was a reason for just that error
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from sdjob.ckpt.engine import Claim, Commit, Restored
from sdjob.core.errors import DeniedError, FencedError, MissingError, StorageError, UnsoundError
from simulator.bucket import Bucket
from simulator.scheduler import Call
from simulator.small_files import files_in
from simulator.truth import TrueCommit, Truth, digest_of, manifest_key, parsed, sha256

UNCERTAIN = {"busy", "lost", "late"}


@dataclass
class Actions:
    """What one process did, as far as a rule speaks of it."""

    epoch: int | None = None
    claimed_at: int = 0
    """The number of its claim's slot."""

    batch: str = ""
    looked: bool = False
    """Whether it saw the end of the log since its last batch of deletions."""


@dataclass
class Checker:
    keep: int = 1
    violations: list[str] = field(default_factory=list[str])
    truth: Truth = field(default_factory=Truth)
    snapshots: dict[str, Mapping[str, bytes]] = field(default_factory=dict[str, Mapping[str, bytes]])
    """digest -> files of every state that a trainer handed over."""

    damaged: set[str] = field(default_factory=set[str])
    """Keys whose bytes were damaged in the bucket at some time."""

    states: set[int] = field(default_factory=set[int])
    """Every state of the bucket that was seen."""

    dishonest: bool = False
    _actions: dict[str, Actions] = field(default_factory=lambda: defaultdict(Actions))
    _keys: dict[int, frozenset[str]] = field(default_factory=dict[int, frozenset[str]])
    _state: int = 0
    _marks: dict[str, int] = field(default_factory=dict[str, int])
    _bucket: Bucket | None = None

    def watch(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def fail(self, rule: str, what: str) -> None:
        self.violations.append(f"{rule}: {what}")

    @property
    def slots_damaged(self) -> bool:
        return any(key.startswith("log/") for key in self.damaged)

    def truth_at_the_end(self) -> Truth:
        """For an attempt that begins now, where quarantines may have been damaged since they were written."""
        lost = {number for number in range(len(self.truth.slots)) if self._is_lost(number)}
        return self.truth.without_quarantines(lost, keys=self._keys)

    # ---- effects, told by the bucket

    def created(self, key: str, data: bytes, *, actor: str) -> None:
        if key.startswith("probe/"):
            return
        if not key.startswith("log/"):
            self.fail("order", f"{actor} creates {key}, which is no slot")
            return
        fields = parsed(data)
        self._see(key, f"{fields['kind']} {fields['epoch']} {fields.get('step', fields.get('slots', ''))}")
        self._check_order(key, fields, actor=actor)
        keys = self._whole(fields, actor=actor) if fields["kind"] == "commit" else frozenset[str]()
        self._keys[fields["number"]] = keys
        if fields["kind"] == "retire":
            self._check_retired(fields["slots"], actor=actor)
        self.truth.add(fields, keys=keys)

    def wrote(self, key: str, data: bytes, *, actor: str) -> None:
        kind, _, rest = key.partition("/")
        if kind == "blob":
            self._see(key, "whole")
            epoch = self._actions[actor].epoch
            if rest.partition("-")[0] != f"{epoch}/{sha256(data)}":
                self.fail("whole", f"{actor} of epoch {epoch} writes {len(data)} bytes as {key}")
        elif kind != "hint":
            self.fail("order", f"{actor} writes {key} unconditionally")

    def deleting(self, keys: list[str], *, actor: str) -> None:
        blobs = [key for key in keys if not key.startswith("probe/")]
        if not blobs:
            return
        named = {key: commit for commit in self.truth.live if not self._is_lost(commit.slot) for key in commit.keys}
        for key in blobs:
            self._see(key, "gone")
            if key in named:
                self.fail("kept", f"{actor} deletes {key} of the live commit in slot {named[key].slot}, step {named[key].step}")
            if not key.startswith("blob/") or int(key.split("/")[1]) > (self._actions[actor].epoch or 0):
                self.fail("kept", f"{actor} of epoch {self._actions[actor].epoch} deletes {key}")

    def looked(self, key: str, *, actor: str) -> None:
        if key == f"log/{len(self.truth.slots):012d}.json":
            self._actions[actor].looked = True

    def deletes(self, call: Call) -> None:
        """Called, whatever becomes of it."""
        if call.key.startswith("probe/"):
            return
        actions = self._actions[call.actor]
        if call.key != actions.batch and not actions.looked:
            self.fail("kept", f"{call.actor} deletes a batch without a look at the log: {call.key}")
        actions.batch, actions.looked = call.key, False

    def harmed(self, key: str) -> None:
        """Somebody else damages an object."""
        self.damaged.add(key)
        self._see(key, "damaged")

    # ---- what an attempt was told

    def claimed(self, claim: Claim, *, actor: str) -> None:
        mine = [slot for slot in self.truth.slots if slot["kind"] == "claim" and slot["nonce"] == claim.nonce]
        if not mine or mine[-1]["epoch"] != claim.epoch:
            self.fail("order", f"{actor} was told of a claim of epoch {claim.epoch}; the log has {mine}")
            return
        actions = self._actions[actor]
        actions.claimed_at = mine[-1]["number"]

    def drafted(self, epoch: int, *, actor: str) -> None:
        self._actions[actor].epoch = epoch

    def committed(self, commit: Commit, *, actor: str) -> None:
        epoch = self._actions[actor].epoch
        fields = self.truth.slots[commit.slot] if commit.slot < len(self.truth.slots) else {}
        if (fields.get("kind"), fields.get("epoch"), fields.get("digest")) != ("commit", epoch, commit.digest):
            self.fail("whole", f"{actor} of epoch {epoch} was told of a commit in slot {commit.slot}; the log has {fields}")

    def restored(self, restored: Restored | None, *, actor: str) -> None:
        """Against the log as of the claim; quarantines of the attempt's own included."""
        live = self.truth.live_at(self._actions[actor].claimed_at, keys=self._keys)
        newer = [commit for commit in live if restored is None or commit.slot > restored.slot]
        if sound := [commit.slot for commit in newer if not commit.keys & self.damaged]:
            got = "nothing" if restored is None else f"slot {restored.slot}"
            if not self.slots_damaged:
                self.fail("restored", f"{actor} restores {got}, while the newer commits in slots {sound} are live and whole")
        if restored is None and live:
            self.fail("restored", f"{actor} starts afresh, while the commits in slots {[c.slot for c in live]} are live")
        if restored is not None:
            if restored.slot not in {commit.slot for commit in live} and not self.slots_damaged:
                self.fail("restored", f"{actor} restores slot {restored.slot}, which is not live")
            self.check_files(restored, actor=actor)

    def check_files(self, restored: Restored, *, actor: str) -> None:
        found = files_in(restored.folder)
        if found != self.snapshots.get(restored.digest) or digest_of(found) != restored.digest:
            self.fail("restored", f"{actor} is given other bytes than those of slot {restored.slot}, step {restored.step}")

    # ---- why an attempt or a reader ended

    def ended(self, error: Exception | None, *, actor: str, troubles: set[str]) -> None:
        if error is not None and not self._is_justified(error, actor=actor, troubles=troubles):
            self.fail("honest", f"{actor} (epoch {self._actions[actor].epoch}) ends without a reason: {error!r}")

    def _is_justified(self, error: Exception, *, actor: str, troubles: set[str]) -> bool:
        match error:
            case FencedError():
                return self.truth.epoch > (self._actions[actor].epoch or 0)
            case StorageError():
                return bool(troubles & UNCERTAIN)
            case DeniedError():
                return "denied" in troubles
            case MissingError():
                return True  # the reader's own check says more
            case UnsoundError():
                return bool(self.damaged) or self.dishonest
        return False

    def read(self, restored: Restored | None, *, actor: str, before: list[TrueCommit], step: int | None) -> None:
        """What a reader got, and the commits that were live when it began."""
        if restored is not None:
            self.check_files(restored, actor=actor)
        elif step is None and before and not self.damaged:
            self.fail("honest", f"{actor} is told that there is no checkpoint, while there are some")

    # ----

    def _is_lost(self, number: int) -> bool:
        """This slot's bytes were damaged: nobody can know of it any more."""
        return f"log/{number:012d}.json" in self.damaged

    def _check_order(self, key: str, fields: dict[str, object], *, actor: str) -> None:
        number, epoch, length = fields["number"], fields["epoch"], len(self.truth.slots)
        assert isinstance(epoch, int)
        if number != length or key != f"log/{length:012d}.json":
            self.fail("order", f"{actor} creates {key} (number {number}); the log ends before slot {length}")
        if fields["kind"] == "claim":
            self.drafted(epoch, actor=actor)
        if epoch != self.truth.epoch if fields["kind"] != "claim" else epoch <= self.truth.epoch:
            self.fail(
                "order", f"{actor} writes {fields['kind']} of epoch {epoch} in slot {number}, past epoch {self.truth.epoch}"
            )
        # A claim whose reply was lost and whose slot was damaged at once is made again: nobody can read that it stands.
        if any(slot["nonce"] == fields["nonce"] and not self._is_lost(slot["number"]) for slot in self.truth.slots):
            self.fail("order", f"{actor} writes its {fields['kind']} twice, in slot {number} again")

    def _check_retired(self, slots: list[int], *, actor: str) -> None:
        newest = [commit.slot for commit in self.truth.live if not self._is_lost(commit.slot)][-self.keep :]
        if (lost := set(slots) & set(newest)) and not self.slots_damaged:
            self.fail("kept", f"{actor} retires {sorted(lost)} of the newest live commits {newest}")

    def _whole(self, fields: dict[str, object], *, actor: str) -> frozenset[str]:
        assert self._bucket is not None
        objects, key, where = self._bucket.objects, manifest_key(fields), f"{actor}'s commit of step {fields['step']}"
        data = objects.get(key)
        if data is None or sha256(data) != fields["manifest"]:
            if key not in self.damaged:
                self.fail("whole", f"{where} names a manifest that is not whole: {key}")
            return frozenset({key})
        files = {name: file["blob"] for name, file in parsed(data)["files"].items()}
        keys = frozenset({key, *files.values()})
        found = {name: objects.get(blob, b"") for name, blob in files.items()}
        if found != self.snapshots.get(str(fields["digest"])) and not keys & self.damaged:
            self.fail("whole", f"{where} is not what was snapshot: {sorted(files.items())}")
        return keys

    def _see(self, key: str, what: str) -> None:
        """The state is the set of all that is there, whatever came first: a sum over its members' hashes."""
        mark = int.from_bytes(blake2b(f"{key} {what}".encode(), digest_size=8).digest(), "big")
        self._state ^= self._marks.get(key, 0) ^ mark
        self._marks[key] = mark
        self.states.add(self._state)

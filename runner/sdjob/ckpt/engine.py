"""The commit log: claim a run, restore its newest whole state, commit, prune, finish. Files, never tensors.

No thread, clock or randomness of its own: time comes from a Clock, nonces from a callable, and all else from the store.
Calls of one CommitLog follow one another; which thread makes them does not matter.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdjob.ckpt.blobs import Blobs, NotKeptError
from sdjob.ckpt.history import History, LoggedCommit
from sdjob.ckpt.journal import Journal
from sdjob.ckpt.manifest import DamagedBlobError, Manifest, StoredFile, hashed_snapshot, refuse_unsound, snapshot_digest
from sdjob.ckpt.probe import refuse_dishonest
from sdjob.ckpt.prune import orphans, retire_slots, sweep
from sdjob.ckpt.slot import (
    LONGEST_REASON,
    ClaimSlot,
    CommitSlot,
    DoneSlot,
    QuarantineSlot,
    RetireSlot,
    fitting,
    shortened,
)
from sdjob.core.clock import Clock
from sdjob.core.errors import MissingError, SdjobError, UnsoundError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff
from sdjob.store.base import ObjectStore
from sdjob.store.patient import PatientStore

# Readers of a retired commit (export, sample) have this long before its blobs go. Safety does not rest on it: a new holder
# never restores or reuses what was retired before its claim, and the slots fence an old one.
PRUNE_GRACE_S = 5.0
RETIRED_PER_SLOT = 50  # two numbers of at most 12 digits each stay below a slot's 2 KB


@dataclass(frozen=True, kw_only=True)
class Claim:
    epoch: int
    nonce: str
    history: History
    """The log as of the claim: what is restored is chosen from this."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    step: int
    digest: str
    slot: int
    seconds: float
    uploaded_bytes: int


@dataclass(frozen=True, kw_only=True)
class Restored:
    step: int
    digest: str
    folder: Path
    manifest: Manifest
    slot: int
    near_bytes: int
    """Of copies on this machine, which did not have to be downloaded."""


def new_nonce() -> str:
    return secrets.token_hex(16)


class CommitLog:
    """One run's checkpoints in one place. `replay`, `fetch` and `manifest_of` only read; all that writes needs a `claim`."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Clock,
        log: Log,
        unsafe_single_writer: bool = False,
        keep: int = 3,
        keep_every: int | None = None,
        prune_grace_s: float = PRUNE_GRACE_S,
        backoff: Backoff | None = None,
        new_nonce: Callable[[], str] = new_nonce,
    ) -> None:
        self._store = PatientStore(store, backoff=backoff or Backoff(clock=clock))
        self._journal = Journal(self._store, clock=clock, log=log, new_nonce=new_nonce)
        self.blobs = Blobs(self._store)
        self._clock = clock
        self._log = log
        self._unsafe_single_writer = unsafe_single_writer
        self._keep = keep
        self._keep_every = keep_every
        self._prune_grace_s = prune_grace_s
        self._new_nonce = new_nonce
        self._claim: ClaimSlot | None = None
        self._manifests: dict[int, Manifest] = {}

    @property
    def uri(self) -> str:
        return self._store.uri

    def probe(self) -> None:
        """UnsoundError where the store does not refuse to create what exists, unless the job accepts that."""
        refuse_dishonest(
            self._store, nonces=(self._new_nonce(), self._new_nonce()), accept=self._unsafe_single_writer, log=self._log
        )

    def replay(self) -> History:
        """The log as it stands, read anew. Raises UnsoundError where a slot is missing."""
        return self._journal.replay()

    def claim(self, *, attempt: str, host: str) -> Claim:
        """Makes this the one attempt that may write; whoever held the run is fenced by it. Raises as `replay` does."""
        self.replay()
        self._claim = self._journal.append(
            lambda stamp: ClaimSlot(**stamp, attempt=shortened(attempt), host=shortened(host)), holder=None
        )
        return Claim(epoch=self._claim.epoch, nonce=self._claim.nonce, history=self._journal.history)

    def restore(self, into: Path, *, copies: Path | None = None) -> Restored | None:
        """The newest whole commit, in the folder; damaged ones are quarantined on the way back. None before the first commit.

        copies: as for Blobs.download_all.
        Raises UnsoundError where there were commits and none is whole: the damage is listed, nothing starts afresh.
        """
        self._holder()
        while self._journal.history.live:
            commit = self._journal.history.live[0]
            try:
                return self._download(commit, into, copies=copies)
            except DamagedBlobError as damage:
                self._quarantine(commit, why=str(damage))
        if self._journal.history.commits or self._journal.history.damaged:
            raise _nothing_whole(self._journal.history, where=self.uri)
        return None

    def fetch(self, into: Path, *, step: int | None = None) -> Restored:
        """For readers, without a claim and without a write: the newest whole commit, or the one of a step.

        A commit that was pruned or damaged meanwhile is passed by for a newer one, then for an older one. Raises
        MissingError where no such commit is live, UnsoundError where none is whole.
        """
        damage: dict[int, str] = {}
        while candidates := [c for c in self.replay().live if c.slot not in damage and step in {None, c.step}]:
            try:
                return self._download(candidates[0], into)
            except DamagedBlobError as error:
                damage[candidates[0].slot] = str(error)
        live = {commit.slot for commit in self._journal.history.live}
        if damage := {slot: why for slot, why in damage.items() if slot in live}:  # what was pruned meanwhile is not damaged
            raise UnsoundError(f"no whole checkpoint is left: {_listed(damage)}", where=self.uri)
        steps = ", ".join(str(commit.step) for commit in reversed(self._journal.history.live)) or "none yet"
        wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
        raise MissingError(f"this run does not have {wanted}; the steps that it has: {steps}.", where=self.uri)

    def manifest_of(self, commit: LoggedCommit) -> Manifest:
        """A commit's manifest, checked by its hash. Raises DamagedBlobError (an UnsoundError)."""
        if commit.slot not in self._manifests:
            self._manifests[commit.slot] = self.blobs.manifest(commit)
        return self._manifests[commit.slot]

    def commit(self, folder: Path, *, step: int, facts: dict[str, Any]) -> Commit:
        """Makes the snapshot in the folder the newest commit. After any error before its slot, nothing of it is visible.

        facts: JSON that stands in the manifest. Raises UnsoundError for a loss or grad_norm among them that is not finite,
        FencedError where another attempt has claimed the run.
        """
        claim, started_s = self._holder(), self._clock.monotonic_s()
        refuse_unsound(facts, step=step)
        try:
            manifest, uploaded_bytes = self._uploaded(folder, epoch=claim.epoch, step=step, facts=facts)
            sha256, manifest_bytes = self.blobs.upload_manifest(manifest, epoch=claim.epoch)
        except NotKeptError:
            self.still_owner()  # a newer holder's pruning takes what an older one still uploads
            raise
        size_bytes, digest = manifest.size_bytes, manifest.digest
        slot = self._journal.append(
            lambda stamp: CommitSlot(**stamp, step=step, manifest=sha256, digest=digest, size_bytes=size_bytes), holder=claim
        )
        self._manifests[slot.number] = manifest
        self._forget_pruned()
        return Commit(
            step=step,
            digest=manifest.digest,
            slot=slot.number,
            seconds=self._clock.monotonic_s() - started_s,
            uploaded_bytes=uploaded_bytes + manifest_bytes,
        )

    def prune(self) -> list[int]:
        """Retires what policy lets go and deletes the blobs that no live commit names; the steps that were retired.

        Never while a commit of this log is under way: its blobs have no name yet.
        """
        claim = self._holder()
        retiring = retire_slots(self._journal.history, keep=self._keep, keep_every=self._keep_every)
        if not retiring and not self._orphans(claim):
            return []
        live_steps = {commit.slot: commit.step for commit in self._journal.history.live}
        self._retire(retiring, claim=claim)
        self._clock.sleep(self._prune_grace_s)
        # Asked again, now that the retire slot stands: a commit whose reply had been lost is in the history by now.
        sweep(self._orphans(claim), blobs=self.blobs, still_owner=self.still_owner)
        return sorted(live_steps[commit.slot] for commit in retiring if commit.slot in live_steps)

    def still_owner(self) -> None:
        """Asks the log. FencedError where another attempt has claimed the run."""
        claim = self._holder()
        self._journal.catch_up()
        self._journal.require_holder(claim)

    def finish(self, *, step: int, digest: str, published: Sequence[str]) -> None:
        """The last write of a run: it is done, with this state, and published there."""
        claim = self._holder()
        newest = next(iter(self._journal.history.live), None)
        if newest is None or (newest.step, newest.digest) != (step, digest):
            raise SdjobError(
                f"a run is done with its newest commit, which step {step} with digest {digest} is not.", where=self.uri
            )
        self._journal.append(
            lambda stamp: DoneSlot(**stamp, step=step, digest=digest, published=fitting(published)), holder=claim
        )

    def _forget_pruned(self) -> None:
        """A run of a week has 10,000 commits, of which a handful is live."""
        live = {commit.slot for commit in self._journal.history.live}
        self._manifests = {slot: manifest for slot, manifest in self._manifests.items() if slot in live}

    def _holder(self) -> ClaimSlot:
        if self._claim is None:
            raise SdjobError("only the holder of a claim may restore or write; claim the run first.", where=self.uri)
        return self._claim

    def _download(self, commit: LoggedCommit, into: Path, *, copies: Path | None = None) -> Restored:
        into.mkdir(parents=True, exist_ok=True)
        manifest, near_bytes = self.blobs.download_all(commit, into, copies=copies)
        self._manifests[commit.slot] = manifest
        return Restored(
            step=commit.step, digest=commit.digest, folder=into, manifest=manifest, slot=commit.slot, near_bytes=near_bytes
        )

    def _quarantine(self, commit: LoggedCommit, *, why: str) -> None:
        self._log.warning("commit_damaged", f"the commit of step {commit.step} is damaged and set aside: {why}", step=commit.step)
        reason = shortened(why, limit=LONGEST_REASON)
        self._journal.append(lambda stamp: QuarantineSlot(**stamp, slot=commit.slot, why=reason), holder=self._holder())

    def _uploaded(self, folder: Path, *, epoch: int, step: int, facts: dict[str, Any]) -> tuple[Manifest, int]:
        """The manifest of a snapshot whose blobs are all in the store, and the bytes that had to travel."""
        hashed, reusable = hashed_snapshot(folder), self._reusable()
        files: dict[str, StoredFile] = {}
        uploaded_bytes = 0
        for name, file in hashed.items():
            files[name], travelled_bytes = self.blobs.upload(file, epoch=epoch, reusable=reusable)
            uploaded_bytes += travelled_bytes
        return Manifest(step=step, digest=snapshot_digest(hashed), files=files, facts=facts), uploaded_bytes

    def _reusable(self) -> dict[str, str]:
        """sha256 -> key of the blobs that live commits name. Live now means kept at the claim, or committed by us since; and
        of the two nobody but us, who hold the claim, can retire one."""
        keys: dict[str, str] = {}
        for commit in self._journal.history.live:
            try:
                files = self.manifest_of(commit).files.values()
            except DamagedBlobError as damage:
                self._log.warning("manifest_damaged", f"the commit of step {commit.step} is damaged: {damage}", step=commit.step)
                continue
            keys.update((file.sha256, file.blob) for file in files)
        return keys

    def _retire(self, retiring: Sequence[LoggedCommit], *, claim: ClaimSlot) -> None:
        """At least one slot, even of nothing: it settles the number that a commit whose reply was lost may yet land on."""
        for start in range(0, max(len(retiring), 1), RETIRED_PER_SLOT):
            part = retiring[start : start + RETIRED_PER_SLOT]
            slots, steps = tuple(commit.slot for commit in part), tuple(commit.step for commit in part)
            self._append_retire(slots, steps=steps, claim=claim)

    def _append_retire(self, slots: tuple[int, ...], *, steps: tuple[int, ...], claim: ClaimSlot) -> None:
        self._journal.append(lambda stamp: RetireSlot(**stamp, slots=slots, steps=steps), holder=claim)

    def _orphans(self, claim: ClaimSlot) -> list[str]:
        """Blobs that no live commit names; none at all where a live manifest cannot be read, since it might name any."""
        try:
            manifests = {commit: self.manifest_of(commit) for commit in self._journal.history.live}
        except DamagedBlobError as damage:
            self._log.warning("prune_skipped", f"nothing is deleted, since a live commit's manifest is damaged: {damage}")
            return []
        return orphans(self._store.keys("blob/"), manifests=manifests, epoch=claim.epoch)


def _nothing_whole(history: History, *, where: str) -> UnsoundError:
    damage = {commit.slot: commit.why or f"is {commit.state}" for commit in history.commits if commit.state != "retired"}
    damage.update({slot.number: slot.why for slot in history.damaged})
    return UnsoundError(
        f"this run has no whole checkpoint left: {_listed(damage)}",
        where=where,
        next_step="Restore the place from a backup, or start the run anew in another place.",
    )


def _listed(damage: dict[int, str]) -> str:
    return " ".join(f"slot {number}: {why}" for number, why in sorted(damage.items(), reverse=True))

"""A run that tests play against a store: deterministic snapshots, a commit log without waits, and the protocol's invariants."""

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore
from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.history import History
from sdjob.ckpt.slot import ClaimSlot, decode, slot_key
from sdjob.core.log import Log
from sdjob.store.base import ObjectStore

STEPS = (10, 20, 30)


def quiet_log() -> Log:
    return Log(mode="text", stream=io.StringIO(), clock=FakeClock(), secrets=())


def nonces(owner: str) -> Callable[[], str]:
    count = itertools.count()
    return lambda: f"{owner}-{next(count)}"


_owners = itertools.count()


def commit_log(store: ObjectStore, *, clock: FakeClock | None = None, log: Log | None = None, **settings: object) -> CommitLog:
    """A new attempt's commit log."""
    settings = {"prune_grace_s": 1.0, "keep": 2, "new_nonce": nonces(f"attempt{next(_owners)}"), **settings}
    return CommitLog(store, clock=clock or FakeClock(), log=log or quiet_log(), **settings)  # type: ignore[arg-type]


def snapshot(folder: Path, *, step: int) -> Path:
    """A state that is a pure function of the step, as in an exact run. One file never changes, as frozen weights do not."""
    snapshot = folder / f"step-{step}"
    if not snapshot.exists():
        snapshot.mkdir(parents=True)
        (snapshot / "weights.safetensors").write_bytes(f"weights {step}".encode() * 5)
        (snapshot / "optimizer.safetensors").write_bytes(b"the same at every step")
        (snapshot / "state.json").write_text(json.dumps({"step": step}))
    return snapshot


def digest_of(step: int, *, folder: Path) -> str:
    """Computed apart from the code under test, by the definition."""
    lines = sorted(
        f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in snapshot(folder, step=step).iterdir()
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def play(log: CommitLog, folder: Path, *, acknowledged: list[int], steps: tuple[int, ...] = STEPS, host: str = "host") -> str:
    """One attempt from its claim to `done`; `acknowledged` gets every step whose commit returned. The final digest."""
    log.claim(attempt="an attempt", host=host)
    restored = log.restore(folder / "restored" / host)
    start = restored.step if restored else 0
    digest = restored.digest if restored else ""
    if restored:
        assert restored.digest == digest_of(restored.step, folder=folder / "states")
    for step in steps:
        if step > start:
            digest = log.commit(snapshot(folder / "states", step=step), step=step, facts={"loss": 0.5, "grad_norm": 1.0}).digest
            acknowledged.append(step)
            log.prune()
    log.finish(step=steps[-1], digest=digest, published=["memory://there"])
    return digest


def read_slots(objects: dict[str, bytes]) -> Iterator[object]:
    for number in range(sum(key.startswith("log/") for key in objects)):
        yield decode(objects[slot_key(number)], number=number)


def check_invariants(objects: dict[str, bytes], *, folder: Path) -> History:
    """One total order without a gap, nothing written past a newer claim, and every live commit whole."""
    epoch = 0
    for slot in read_slots(objects):
        if isinstance(slot, ClaimSlot):
            assert slot.epoch > epoch
            epoch = slot.epoch
        assert slot.epoch == epoch, f"{slot} stands past a newer claim"
    reader = commit_log(MemoryStore(objects))
    history = reader.replay()
    for commit in history.live:
        restored = reader.fetch(folder / "checked", step=commit.step)
        assert restored.slot == commit.slot
        assert restored.digest == digest_of(commit.step, folder=folder / "states")
    return history

"""A job's encodings, seen from the parent: brought before the trainers start, kept beside them, told to them when all are here.

What is missing the trainers compute, each process its share. A shard whose bytes are not what its name says, wherever it lies, is
taken away and computed again. Each node of a gang puts what it computed into the run's place, and takes the others' from there.
"""

import queue
import shutil
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdjob.core.clock import Clock
from sdjob.core.errors import DataError, DeniedError, MissingError, SdjobError, StorageError
from sdjob.core.log import Log
from sdjob.data.shelf import require_space
from sdjob.encodings.plan import Plan, Shard, share_of
from sdjob.encodings.reader import read_table, write_table
from sdjob.encodings.shard import FOLDER, PLACE, ShardFile, files_in
from sdjob.encodings.verified import Verified
from sdjob.job.stop import StopRequest
from sdjob.spec.task import EncodeTask
from sdjob.store.base import ObjectInfo, ObjectStore, scratch_errors
from sdjob.store.transfer import download_tree

TABLE = "encodings.json"  # in an attempt's folder, and in every checkpoint's
LOOK_S = 2.0  # between two looks for what other nodes have computed
LOG_EVERY_S = 10.0
TELL_EVERY_S = 60.0
DAMAGED_READS = 3  # of one object in the place: what is on its way there is whole, or not there
JOIN_S = 0.2
HASHERS = 4
UPLOADS = 4  # at once, and no more: they go on beside the training
TROUBLE = (StorageError, DeniedError, MissingError, DataError)


@dataclass
class EncodedShards:
    plan: Plan
    model_hashes: Mapping[str, str]
    store: ObjectStore
    scratch: Path
    """Of the machine: shards are shared by all attempts and jobs."""

    attempt: Path
    """The attempt's own folder."""

    wanted: Mapping[str, str]
    """What the checkpoint was trained on: sha256 by shard."""

    stop: StopRequest
    clock: Clock
    log: Log
    node: int = 0
    nodes: int = 1
    on_ready: Callable[[], None] = lambda: None
    """Told when all shards are here, by any thread."""

    on_failure: Callable[[], None] = lambda: None
    on_encoded: Callable[[dict[str, int]], None] = lambda _: None
    """Told how many shards there are, and how many of them were computed now."""

    on_kept: Callable[[int], None] = lambda _: None
    """Told now and then how many this attempt has put into the place, where a next one finds them."""

    failure: Exception | None = None
    """Why not all that was computed is kept."""

    verified: Verified = field(init=False)
    _here: dict[str, ShardFile] = field(default_factory=dict[str, ShardFile])
    _there: dict[str, ObjectInfo] = field(default_factory=dict[str, ObjectInfo])
    """In the run's place, by key."""

    _mine: set[str] = field(default_factory=set[str])
    """What this node has still to compute."""

    _queue: "queue.Queue[ShardFile | None]" = field(default_factory=queue.Queue["ShardFile | None"])
    _over: threading.Event = field(default_factory=threading.Event)
    _num_computed: int = 0
    _num_kept: int = 0
    _damaged: Counter[str] = field(default_factory=Counter[str])
    """How often a key of the place was found to hold other bytes than its name says."""

    _keepers: list[threading.Thread] = field(default_factory=list[threading.Thread])
    _moved: threading.Condition = field(default_factory=threading.Condition)
    """Told where the gathering, which waits for it, may go on."""

    _logged_at_s: float = 0.0
    _told_at_s: float = float("-inf")

    def __post_init__(self) -> None:
        self.verified = Verified(self.folder)

    @property
    def folder(self) -> Path:
        return self.scratch / FOLDER

    @property
    def table(self) -> Path:
        return self.attempt / TABLE

    @property
    def num_missing(self) -> int:
        return len(self.plan.shards) - len(self._here)

    @property
    def _names(self) -> set[str]:
        return {shard.name for shard in self.plan.shards}

    # ---- before the trainers -------------------------------------------------------------------------------------------------

    def bring(self, *, num_processes: int) -> EncodeTask:
        """Everything that is whole, here or in the run's place; and who computes the rest."""
        with scratch_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for look in (self._look_there, self._look_here, self._fetch):
            try:
                look()
            except TROUBLE as error:
                self.log.warning("encodings", f"not all that was encoded before could be brought: {error}")
        self._logged_at_s = self.clock.monotonic_s()
        missing = [shard for shard in self._own() if shard.name not in self._here]
        self._mine = {shard.name for shard in missing}
        self._say_what_is_missing(missing)
        self._start_keeping()
        shares = tuple(tuple(shard.name for shard in missing[rank::num_processes]) for rank in range(num_processes))
        return EncodeTask(folder=self.folder, table=self.table, model_hashes=dict(self.model_hashes), missing=shares)

    def _own(self) -> list[Shard]:
        """This node's share; and what lies damaged in the place, which another node may well have whole, and not write again."""
        share = {shard.name for shard in share_of(self.plan.shards, node=self.node, nodes=self.nodes)}
        damaged = {file.name for key in self._damaged if (file := ShardFile.at(key)) is not None}
        return [shard for shard in self.plan.shards if shard.name in share | damaged]

    def _look_there(self) -> None:
        names, found = self._names, dict[str, ObjectInfo]()
        for info in self.store.list(f"{PLACE}/"):
            if (file := ShardFile.at(info.key)) is not None and file.name in names:
                found[file.key] = info
        self._there = found

    def _look_here(self) -> None:
        """A file that is not what its name says is taken away."""
        self.verified.read()
        files = list(self._chosen(files_in(self.folder)).values())
        with ThreadPoolExecutor(HASHERS, thread_name_prefix="encodings") as pool:
            for file, whole in zip(files, pool.map(self.verified.is_whole, files), strict=True):
                self.stop.check()
                if whole:
                    self._here[file.name] = file
                else:
                    path = self.folder / file.file_name
                    self.log.warning("encodings-damaged", f"{path} is not what was written: it is taken anew")
                    with scratch_errors(path):
                        path.unlink(missing_ok=True)
        self._record()

    def _record(self) -> None:
        try:
            self.verified.write()
        except OSError as error:
            why = "which encodings are whole cannot be noted down, so the next start reads all of them"
            self.log.warning("encodings", f"{why}: {error.strerror}: {self.verified.record}")

    def _chosen(self, files: Iterable[ShardFile]) -> dict[str, ShardFile]:
        """One for each shard of the plan, though several may have been computed on different machines."""
        names = self._names
        return {file.name: file for file in sorted(files, key=self._rank, reverse=True) if file.name in names}

    def _rank(self, file: ShardFile) -> tuple[bool, bool, str]:
        """The least is taken: what was trained on, then what the run's place has too."""
        return self.wanted.get(file.name) != file.sha256, file.key not in self._there, file.sha256

    def _fetch(self) -> None:
        """What the place has and this machine has not, or has in other bits than were trained on."""
        best = self._chosen(file for key in self._there if (file := ShardFile.at(key)) is not None)
        absent = {file.key: file for name, file in best.items() if self._improves(file, on=self._here.get(name))}
        if not absent:
            return
        aside = self.attempt / "encodings-new"
        infos = [self._there[key] for key in absent]
        try:
            require_space(sum(info.size_bytes for info in infos), folder=self.folder)
            got = download_tree(self.store, infos=infos, into=aside, check_stop=self.stop.check, on_progress=self._on_fetch)
            whole = [file for key, file in absent.items() if self._adopt(file, aside / key, sha256=got[key].sha256)]
            with ThreadPoolExecutor(HASHERS, thread_name_prefix="encodings") as pool:
                deque(pool.map(self.verified.note, whole), maxlen=0)
            self._record()
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _improves(self, file: ShardFile, *, on: ShardFile | None) -> bool:
        return on is None or self._rank(file) < self._rank(on)

    def _adopt(self, file: ShardFile, path: Path, *, sha256: str) -> bool:
        """Whether it is what its name says."""
        if sha256 == file.sha256:
            path.replace(self.folder / file.file_name)
            self._here[file.name] = file
            return True
        del self._there[file.key]  # it is written again
        self._damaged[file.key] += 1
        self.log.warning("encodings-damaged", f"{self.store.uri}/{file.key} is not what was written: it is encoded again")
        if self._damaged[file.key] == DAMAGED_READS:
            raise StorageError(
                "an encoding that another node keeps here cannot be read as it was written.",
                where=f"{self.store.uri}/{file.key}",
                next_step="Delete it, and run the same command again.",
            )
        return False

    def _on_fetch(self, done_bytes: int, of_bytes: int) -> None:
        self.log.progress(f"fetching encodings: {done_bytes / 2**20:.0f} of {of_bytes / 2**20:.0f} MiB")

    # ---- while the trainers compute ------------------------------------------------------------------------------------------

    def heard(self, fields: Mapping[str, Any]) -> None:
        """A trainer has written a shard."""
        file = ShardFile(fields["name"], fields["sha256"])
        self._here[file.name] = file
        self._queue.put(file)  # before it is no longer awaited: the other nodes need it
        with self._moved:
            self._mine.discard(file.name)
            self._moved.notify_all()
        self._say_how_far()
        if not self._mine and self.nodes == 1:
            self._settle()

    def _say_how_far(self) -> None:
        line = f"encoding: {len(self._here)} of {len(self.plan.shards)} shards"
        self.log.progress(line)
        now_s = self.clock.monotonic_s()
        if now_s - self._logged_at_s >= LOG_EVERY_S and not self.log.has_bar:
            self._logged_at_s = now_s
            self.log.event("encoding", line, done=len(self._here), of=len(self.plan.shards))

    def _say_what_is_missing(self, missing: Sequence[Shard]) -> None:
        if missing:
            entries = sum(len(shard.members_E) for shard in missing)
            line = f"encoding {entries} pictures and captions before the training"
            self.log.event("encode", line, shards=len(self.plan.shards), missing=len(missing), entries=entries)
            self._num_computed = len(missing)

    def _settle(self) -> None:
        write_table(self.table, sha256_by_shard={name: file.sha256 for name, file in self._here.items()})
        line = f"pictures and captions are encoded: {len(self._here)} shards, {self._num_computed} of them computed now"
        counts = {"shards": len(self._here), "computed": self._num_computed}
        self.log.event("encoded", line, **counts)
        self.on_encoded(counts)
        if self._num_computed:
            self.on_ready()

    def changed(self) -> list[str]:
        """Why going on is correct to rounding: encodings that the checkpoint was trained on are gone, and came out otherwise."""
        other = [name for name, sha256 in self.wanted.items() if name in self._here and self._here[name].sha256 != sha256]
        return [f"encodings: {len(other)} shards were computed anew, and differ"] if other else []

    # ---- beside the training -------------------------------------------------------------------------------------------------

    def _start_keeping(self) -> None:
        if not self.num_missing:
            self._settle()
        for file in self._here.values():
            if file.key not in self._there:
                self._queue.put(file)
        tasks = [self._keep_all] * UPLOADS + ([self._gather] if self.nodes > 1 else [])
        # Daemons: an upload that hangs keeps no process from its end. What is there of it then is whole or not there.
        self._keepers = [threading.Thread(target=self._guarded, args=(task,), name="encodings", daemon=True) for task in tasks]
        for keeper in self._keepers:
            keeper.start()

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except (SdjobError, OSError) as error:
            self._give_up(error)

    def _keep_all(self) -> None:
        while self.failure is None and (file := self._queue.get()) is not None:
            self._keep(file)
            with self._moved:
                self._queue.task_done()
                self._moved.notify_all()
        self._queue.put(None)  # for the next one

    def _keep(self, file: ShardFile) -> None:
        self.store.write_file(file.key, self.folder / file.file_name)
        now_s = self.clock.monotonic_s()
        with self._moved:
            self._num_kept += 1
            tells = now_s - self._told_at_s >= TELL_EVERY_S and not self._over.is_set()
            self._told_at_s = now_s if tells else self._told_at_s
        if tells:
            self.on_kept(self._num_kept)
        self.verified.note(file)  # whoever wrote it, a trainer or an earlier attempt, has read it back
        if tells:
            self._record()

    def _give_up(self, error: Exception) -> None:
        """Other nodes wait for what is not kept; alone a job goes on without. Of several that fail the first one is told."""
        with self._moved:
            if self.failure is not None:
                return
            self.failure = error
            self._moved.notify_all()
        self.log.warning("encodings", f"what was encoded is not kept for other attempts: {error}")
        self._queue.put(None)
        self.on_failure()

    def check(self) -> None:
        """Raises what keeps the other nodes waiting."""
        if self.failure is not None and self.nodes > 1:
            raise self.failure

    def _gather(self) -> None:
        """When this node's shards are in the run's place, the others' come from there; a stop may come first."""
        with self._moved:
            self._moved.wait_for(lambda: self._ends or not (self._mine or self._queue.unfinished_tasks))
        while self.num_missing and not (self.stop.requested or self._ends):
            self.clock.sleep(LOOK_S)
            self._look_there()
            self._fetch()
            self.log.progress(f"encoding: waiting for {self.num_missing} shards of other nodes")
        if not (self.num_missing or self._ends or self.table.exists()):
            self._settle()

    @property
    def _ends(self) -> bool:
        return self._over.is_set() or self.failure is not None

    def finish(self) -> None:
        """Waits until all that was computed is kept; after a stop request no longer than the notice lasts."""
        if not self._keepers:
            return
        with self._moved:
            self._over.set()
            self._moved.notify_all()
        self._queue.put(None)
        while any(keeper.is_alive() for keeper in self._keepers) and self.stop.seconds_left() > 0:
            next(keeper for keeper in self._keepers if keeper.is_alive()).join(JOIN_S)
        self._record()


def wanted_of(checkpoint: Path | None) -> dict[str, str]:
    """Of a restored checkpoint's folder; empty where it was trained without, and at a fresh start."""
    return read_table(checkpoint / TABLE) if checkpoint is not None and (checkpoint / TABLE).is_file() else {}

"""A node of a gang that is not the first: it trains along, and writes nothing into the run's place but what it has encoded.

It restores the very commit that node 0 chose, verified by its hashes like everybody's, on its own scratch.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from sdjob.ckpt.history import History
from sdjob.ckpt.manifest import DamagedBlobError, Manifest
from sdjob.core.channel import Message
from sdjob.core.errors import StorageError, UsageError
from sdjob.job.encodings import EncodedShards
from sdjob.job.gang import Gang
from sdjob.job.launch import GangShape, trainer_commands
from sdjob.job.nodes.peers import Peers
from sdjob.job.nodes.start import Start
from sdjob.job.prepare import Run, Staged, pictures_of, resolution_of, shards_of, stage, start_early, train_task
from sdjob.job.resume import Resolution, num_processes
from sdjob.job.scratch import attempt_folder
from sdjob.job.stop import RERUN
from sdjob.spec.identity import explain_difference
from sdjob.spec.task import TrainTask, write_task

RESTORED = "restored"


@dataclass
class Follower:
    run: Run
    peers: Peers
    scratch: Path
    """The run's folder on this machine."""

    staged: Staged | None
    """What was staged while the log was looked at; None before the first commit."""

    _shards: EncodedShards | None = None
    _stopping: bool = False

    def execute(self) -> None:
        """Returns when node 0 has published all."""
        [word] = self.peers.await_all("start")
        if word["event"] == "end":
            return
        start, node = Start.of(word), self.peers.node
        with attempt_folder(self.scratch, epoch=start.epoch, nonce=f"{start.nonce}-node{node.number}") as folder:
            self._train(start, folder)
        self.peers.await_end()

    def _train(self, start: Start, folder: Path) -> None:
        run = self.run
        refuse_another_log(start, history=(history := run.commits.replay()), where=run.commits.uri)
        if self.staged is None:
            start_early(run, stored=None)
        staged = self.staged or stage(run, may_write=False)
        manifest = same_commit(run, start, history=history, into=folder / RESTORED)
        resolution = resolution_of(run, staged, stored=manifest.facts if manifest else None)
        check_same(resolution, start=start)
        resolution = replace(resolution, total_steps=start.total_steps, threads=start.threads)
        node, checkpoint = self.peers.node, folder / RESTORED if manifest else None
        processes = num_processes(resolution.job, accelerator=run.accelerator)
        if manifest is None or manifest.step < resolution.total_steps:
            self._shards = shards_of(run, staged, resolution, folder=folder, checkpoint=checkpoint, node=node)
        encode = self._shards.bring(num_processes=processes) if self._shards else None
        task = train_task(
            run,
            staged,
            resolution,
            start_step=manifest.step if manifest else 0,
            restore_from=checkpoint,
            pictures=pictures_of(run, staged, encode=encode),
            folder=folder,
            compiled=None,  # node 0 alone keeps what is compiled
            encode=encode,
        )
        run.log.event(
            "train",
            f"training along as node {node.number} of {node.count}, from step {task.start_step} to step {task.total_steps}",
            start_step=task.start_step,
            total_steps=task.total_steps,
        )
        self._run_trainers(task, num_processes=processes)

    def _run_trainers(self, task: TrainTask, *, num_processes: int) -> None:
        run = self.run
        task_file = task.scratch / "task.json"
        write_task(task, task_file)
        devices = run.accelerator.devices_per_node
        shape = self.peers.shaped(GangShape.of(task, num_processes=num_processes, num_devices=devices))
        gang = Gang(run.stop, run.clock, on_message=self._on_message, watch=self._watch, begin=run.standby.take)
        self.peers.on_loss = gang.wake
        if self._shards is not None:
            self._shards.on_failure = gang.wake
        with self.peers.explaining():
            gang.run(trainer_commands(task_file, shape=shape, environment=run.standby.environment))

    def _on_message(self, message: Message) -> None:
        """What this node's trainers have encoded is all that is heard of them: the rest is told to node 0 by its own."""
        if self._shards is not None and message["event"] == "shard":
            self._shards.heard(message)

    def _watch(self) -> None:
        self.peers.check()
        if self._shards is not None:
            self._shards.check()
        if self.run.stop.requested and not self._stopping:
            self._stopping = True
            self.run.log.event("stopping", "asked to stop: all nodes end after the same step, and node 0 saves it")


def refuse_another_log(start: Start, *, history: History, where: str) -> None:
    if not any((claim.epoch, claim.nonce) == (start.epoch, start.nonce) for claim in history.claims):
        raise UsageError(
            "this node does not see node 0's claim of the run here: its checkpoint.to is another place than node 0's.",
            where=where,
            next_step="Give all nodes the same bucket, or a folder that they share.",
        )


def same_commit(run: Run, start: Start, *, history: History, into: Path) -> Manifest | None:
    """The commit that node 0 chose, and no other: read and hashed here."""
    if start.slot is None:
        return None
    commit = next((c for c in history.commits if (c.slot, c.digest) == (start.slot, start.digest)), None)
    into.mkdir(parents=True)
    try:
        if commit is None:
            raise DamagedBlobError("the log does not have the commit that node 0 restores.", where=f"slot {start.slot}")
        manifest = run.commits.blobs.checked_manifest(commit)
        for name, file in manifest.files.items():
            run.commits.blobs.download(file, into / name)
    except DamagedBlobError as damage:
        # Node 0 has just read these very bytes: another reading may do.
        raise StorageError(
            f"node 0 could read the checkpoint and this node cannot: {damage}", where=run.commits.uri, next_step=RERUN
        ) from damage
    return manifest


def check_same(resolution: Resolution, *, start: Start) -> None:
    different = explain_difference(start.identity, resolution.identity)
    if different:
        listed = "\n  ".join(different)
        raise UsageError(
            f"this node would train something else than node 0; what differs, node 0's value first:\n  {listed}\n",
            next_step="Give all nodes the same model and pictures.",
        )

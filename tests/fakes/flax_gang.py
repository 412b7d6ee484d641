"""Processes of the flax trainer as `sdjob run` starts them, each with a channel of its own."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from fakes.pictures import write_picture_folder
from fakes.tiny_models import write_tiny_model
from fakes.torch_runs import make_task
from sdjob.core.channel import Message
from sdjob.core.proc import Child, start
from sdjob.data.index import scan
from sdjob.data.records import list_records
from sdjob.job.launch import GangShape, trainer_commands
from sdjob.job.nodes.interface import free_port
from sdjob.spec.task import TrainTask, write_task

# The tiny model has no tensor of 64 Ki elements: so that some are spread all the same.
TRAINER = "import sys; from sdjob.train_flax import main, mesh; mesh.SMALLEST_SPREAD = 1024; sys.exit(main.main())"
# Compiling takes far longer than running.
QUICK = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def make_gang_task(folder: Path, **parts: Any) -> TrainTask:
    """The task of a whole trainer: a model, pictures and their index are there."""
    pictures = folder / "pictures"
    pictures.mkdir()
    write_tiny_model(folder / "sd1", family="sd1")
    write_picture_folder(pictures, count=6)
    task = make_task(folder / "sd1", scratch=folder, **parts)
    records = list_records(pictures, image_column="image", caption_column="text")
    task.index.write_bytes(scan(pictures, records=records, workers=0).index.to_jsonl())
    return TrainTask(**{**vars(task), "pictures": pictures})


@dataclass
class Rank:
    child: Child
    on_message: Callable[["Rank", Message], None]
    messages: list[Message] = field(default_factory=list)

    def listen(self) -> None:
        for message in self.child.channel:
            self.messages.append(message)
            if message["event"] == "snapshot":
                self.child.channel.send({"event": "save-over"})
            self.on_message(self, message)

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["event"] == kind]


def run_gang(
    task: TrainTask,
    *,
    num_processes: int,
    devices: int,
    on_message: Callable[[list[Rank], Rank, Message], None] = lambda *_: None,
) -> list[Rank]:
    """Each rank's process, ended, with what it said."""
    task.scratch.mkdir(exist_ok=True)
    file = task.scratch / "task.json"
    write_task(task, file)
    layout: dict[str, int] = {"num_processes": num_processes, "devices": devices, "threads": 1, "port": free_port()}
    shape = GangShape(backend="flax", device="cpu", deterministic=True, **layout)
    ranks: list[Rank] = []
    for command in trainer_commands(file, shape=shape, environment={**os.environ, **QUICK}):
        child = start([sys.executable, "-P", "-c", TRAINER], environment=command.environment)
        child.channel.send(command.task)
        ranks.append(Rank(child, lambda rank, message: on_message(ranks, rank, message)))
    listeners = [Thread(target=rank.listen) for rank in ranks]
    for listener in listeners:
        listener.start()
    for rank, listener in zip(ranks, listeners, strict=True):
        listener.join()
        rank.child.process.wait()
        rank.child.channel.close()
    return ranks

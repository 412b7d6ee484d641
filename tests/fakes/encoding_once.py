"""A job of a tiny model whose encoders run once, in this process: the parent's part and a trainer's, one after the other."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes.encoded import scanned, shards_at
from fakes.memory_store import MemoryStore
from fakes.pictures import write_picture_folder
from fakes.torch_runs import make_task
from sdjob.encodings.plan import make_plan
from sdjob.encodings.reader import Encodings
from sdjob.job.encodings import EncodedShards
from sdjob.job.stage import file_names, hashed
from sdjob.spec.task import TrainTask

STEPS = 4


def training_task(model: Path, folder: Path, *, validation: dict[str, Any] | None = None, **train: Any) -> TrainTask:
    """Ten pictures, flips, dropped captions, two micro-steps."""
    pictures = folder / "pictures"
    if not pictures.exists():
        write_picture_folder(pictures, count=10)
    data = {"flip": True, "caption_dropout": 0.3}
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    settings = {"global_batch": 4, "device_batch": 2, "optimizer": {"learning_rate": 0.01}, **train}
    parts = {"validation": validation} if validation else {}
    task = make_task(model, scratch=scratch, data=data, run={"workers": 0}, train=settings, **parts)
    task.index.write_bytes(scanned(pictures).to_jsonl())
    return replace(task, pictures=pictures, total_steps=STEPS)


def shards_of(task: TrainTask, *, machine: Path, store: MemoryStore | None = None, attempt: int = 1) -> EncodedShards:
    hashes = hashed(task.model, names=file_names(task.model), check_stop=lambda: None)
    plan = make_plan(scanned(task.pictures), job=task.job, model_hashes=hashes)
    return replace(shards_at(store or MemoryStore(), plan=plan, machine=machine, attempt=attempt), model_hashes=hashes)


class HeardLink:
    """A trainer's link, whose other end is the shards."""

    def __init__(self, shards: EncodedShards) -> None:
        self.shards = shards
        self.computed: list[str] = []

    def send(self, event: str, **fields: Any) -> None:
        if event == "shard":
            self.computed.append(fields["name"])
            self.shards.heard(fields)


EncodingsOf = Callable[..., Encodings | None]


def encoded(task: TrainTask, encodings_of: EncodingsOf, *, shards: EncodedShards) -> tuple[TrainTask, Encodings, list[str]]:
    """The task of a trainer without encoders, what they made, and the shards that were computed for that."""
    task = replace(task, encode=shards.bring(num_processes=1), scratch=shards.attempt)
    link: Any = HeardLink(shards)
    found = encodings_of(task, link=link)
    shards.finish()
    assert found is not None
    return task, found, link.computed


@contextmanager
def no_encoder(monkeypatch: Any, encoder: type) -> Generator[None]:
    """Whoever loads the encoders here fails."""
    with monkeypatch.context() as patch:

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("an encoder is loaded")

        patch.setattr(encoder, "of", refuse)
        yield

"""A job's encodings without a model: an index made up, and an encoder whose results tell what it was given."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes.checkpoints import make_job
from fakes.clock import FakeClock
from sdjob.core.log import Log
from sdjob.data.entries import Entry
from sdjob.data.index import Index, scan
from sdjob.data.records import list_records
from sdjob.encodings.plan import Plan, make_plan
from sdjob.encodings.shard import Rows
from sdjob.encodings.work import Pass
from sdjob.job.encodings import EncodedShards
from sdjob.job.stop import StopRequest
from sdjob.spec.job import JobSpec
from sdjob.spec.task import EncodeTask, TrainTask
from sdjob.store.base import ObjectStore

HASHES = {"vae/w": "a" * 64, "text_encoder/w": "b" * 64, "tokenizer/vocab.json": "c" * 64, "unet/w": "d" * 64}


def encoding_job(**data: Any) -> JobSpec:
    return make_job(data=data, train={"precision": "fp32"}, run={"workers": 0})


def made_up_index(num_pictures: int, *, size: tuple[int, int] = (64, 64)) -> Index:
    """Of pictures that nobody reads; two of three have a caption of their own."""
    return Index(tuple(
        Entry(f"{n}.png", sha256=f"{n:064x}", width=size[0], height=size[1], captions=(f"caption {n - n % 3 // 2}",))
        for n in range(num_pictures)
    ))  # fmt: skip


def plan_of(index: Index, *, job: JobSpec | None = None, **hashes: str) -> Plan:
    return make_plan(index, job=job or encoding_job(), model_hashes={**HASHES, **hashes})


class TellingEncoder:
    """Of a picture the mean of its pixels, of a caption its length; and how many of each it was given."""

    devices = 1

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.seen: list[str] = []

    def pictures(self, pixels_BCHW: NDArray[np.float32]) -> dict[str, Rows]:
        self.batches.append(len(pixels_BCHW))
        means_BCHW = np.broadcast_to(pixels_BCHW.mean((1, 2, 3), keepdims=True), (len(pixels_BCHW), 4, 8, 8))
        lopsided_BCHW = means_BCHW + pixels_BCHW[:, :1, :8, :8]
        return {"mean_CHW": Rows("F32", lopsided_BCHW), "log_variance_CHW": Rows("F32", -means_BCHW)}

    def captions(self, captions: Sequence[str]) -> dict[str, Rows]:
        self.batches.append(len(captions))
        self.seen += captions
        return {"states_TD": Rows("F32", np.array([[[len(caption)] * 3] * 2 for caption in captions], np.float32))}


def scanned(pictures: Path) -> Index:
    return scan(pictures, records=list_records(pictures, image_column="image", caption_column="text"), workers=0).index


def encode_task(index: Index, *, job: JobSpec, pictures: Path, encode: EncodeTask, scratch: Path) -> TrainTask:
    (scratch / "index.jsonl").write_bytes(index.to_jsonl())
    return TrainTask(
        job=job, model=scratch, pictures=pictures, index=scratch / "index.jsonl", scratch=scratch, total_steps=10, start_step=0,
        restore_from=None, init_from=None, device="cpu", threads=1, encode=encode,
    )  # fmt: skip


def shards_at(
    store: ObjectStore, *, plan: Plan, machine: Path, attempt: int = 1, words: io.StringIO | None = None, **settings: Any
) -> EncodedShards:
    """Of an attempt on a machine, whose folder this is."""
    clock = FakeClock()
    own = machine / f"attempt-{attempt}"
    own.mkdir(parents=True)
    log = Log(mode="text", stream=words or io.StringIO(), clock=clock, secrets=())
    stop = StopRequest(clock, notice_s=10.0)
    settings = {"wanted": {}, **settings}
    return EncodedShards(plan, HASHES, store, scratch=machine, attempt=own, stop=stop, clock=clock, log=log, **settings)


def computed(shards: EncodedShards, *, index: Index, job: JobSpec, pictures: Path, num_processes: int = 1) -> list[str]:
    """Brings what there is, and has each process compute its share; returns the names of what was computed."""
    encode = shards.bring(num_processes=num_processes)
    task = encode_task(index, job=job, pictures=pictures, encode=encode, scratch=shards.attempt)
    names: list[str] = []
    for rank in range(num_processes):
        work = Pass.of(task)
        assert work is not None
        names += [shard.name for shard in work.missing(rank)]
        work.compute(TellingEncoder(), rank=rank, on_shard=lambda file: shards.heard(vars(file)))
    return names

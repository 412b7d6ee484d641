"""What a trainer process is told: one JSON file, written by `job`, read by every backend."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from sdjob.core.cpu import Isa
from sdjob.spec.job import JobSpec
from sdjob.spec.load import parse_job

Device = Literal["cpu", "cuda", "tpu"]


@dataclass(frozen=True)
class EncodeTask:
    """What the frozen encoders compute once, before the training."""

    folder: Path
    """Where shards lie on this machine."""

    table: Path
    """Appears when all of them are there, with their hashes."""

    model_hashes: dict[str, str]
    """Of the model's files by their paths in its folder."""

    missing: tuple[tuple[str, ...], ...]
    """The names of the shards that each process of this machine computes."""


@dataclass(frozen=True)
class TrainTask:
    """Train from `start_step` to `total_steps`, handing over snapshots of the state on the way."""

    job: JobSpec
    """Resolved: batch sizes, precision and determinism are values, no longer `auto`."""

    model: Path
    """The base model's folder, in diffusers' layout."""

    pictures: Path
    index: Path
    """The ordered index of the pictures, as the scan wrote it."""

    scratch: Path
    """The attempt's own folder: snapshots and samples are written below it."""

    total_steps: int
    start_step: int
    restore_from: Path | None
    """A checkpoint's folder; None at the first start."""

    init_from: Path | None
    device: Device
    threads: int
    """Arithmetic threads of each process: part of what exact resume needs on a CPU."""

    more_pictures: tuple[Path, ...] = ()
    """Of the job's further sources, in the order of `spec.sources`."""

    compiled: Path | None = None
    """The folder of programs that the backend has compiled before, and where it puts new ones."""

    isa: Isa = "avx2"
    """The instructions that torch's arithmetic on a CPU is held to: part of what exact resume needs there."""

    encode: EncodeTask | None = None
    """None: the encoders run at every step. Pictures alone are encoded where the text encoder is trained."""

    ends: Literal["encoded", "trained"] = "trained"
    """Whether anything is trained after the encoders have run."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Of each source the one that its pictures lie in."""
        return (self.pictures, *self.more_pictures)

    @property
    def needs_vae(self) -> bool:
        """Beside the training."""
        return self.encode is None

    @property
    def needs_text_encoder(self) -> bool:
        return self.encode is None or self.job.train.text_encoder != "frozen"


@dataclass(frozen=True)
class SampleTask:
    """Make pictures with a base model, or with weights on top of it."""

    model: Path
    lora: Path | None
    """A folder that holds pytorch_lora_weights.safetensors."""

    prompts: tuple[str, ...]
    images: int
    inference_steps: int
    guidance_scale: float
    width: int | None
    """Pixels; None: what the model was made for."""

    height: int | None
    seed: int
    out: Path
    device: Device
    threads: int


Task = TrainTask | SampleTask
PATHS = {"model", "pictures", "index", "scratch", "restore_from", "init_from", "lora", "out", "compiled"}


def write_task(task: Task, path: Path) -> None:
    kind = "train" if isinstance(task, TrainTask) else "sample"
    content = {f.name: getattr(task, f.name) for f in fields(task)}
    if isinstance(task, TrainTask):
        content["job"] = task.job.model_dump(mode="json")
        content["encode"] = asdict(task.encode) if task.encode else None
    path.write_text(json.dumps({"kind": kind, **content}, default=str, indent=1), encoding="utf-8")


def read_task(path: Path) -> Task:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kind = content.pop("kind")
    for name in PATHS & content.keys():
        content[name] = None if content[name] is None else Path(content[name])
    if kind == "sample":
        content["prompts"] = tuple(content["prompts"])
        return SampleTask(**content)
    content["job"] = parse_job(content["job"])
    content["more_pictures"] = tuple(map(Path, content["more_pictures"]))
    if (encode := content["encode"]) is not None:
        missing = tuple(tuple(names) for names in encode["missing"])
        content["encode"] = EncodeTask(Path(encode["folder"]), Path(encode["table"]), encode["model_hashes"], missing)
    return TrainTask(**content)

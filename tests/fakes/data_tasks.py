"""Tasks of both trainers whose pictures and index are real, with any recipe of `data`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes.pictures import write_picture_folder
from fakes.tiny_models import write_tiny_model
from fakes.torch_runs import make_task
from sdjob.data.entries import Entry
from sdjob.data.index import Index, scan
from sdjob.data.records import list_records
from sdjob.spec.sources import DataSource, data_sources
from sdjob.spec.task import TrainTask

# Three sizes: 64 x 128, 96 x 96, 128 x 64.
BUCKETS = {"resolution": 96, "buckets": {"step": 32, "min": 64, "max": 128}}


def make_data_task(folder: Path, *, num_pictures: int = 10, total_steps: int = 4, **parts: Any) -> TrainTask:
    """`data=dict(...)`, `train=dict(...)` and so on are parts of the job."""
    model, pictures = folder / "sd1", folder / "pictures"
    if not model.exists():
        write_tiny_model(model, family="sd1")
    if not pictures.exists():
        write_picture_folder(pictures, count=num_pictures)
    parts = {"run": {"workers": 2}, **parts, "train": {"global_batch": 4, "device_batch": 2, **parts.get("train", {})}}
    task = make_task(model, scratch=folder, **parts)
    folders = [pictures]
    if task.job.data.prior is not None:
        folders.append(folder / "prior")
        write_picture_folder(folders[-1], count=3, seed=9)
    entries = [
        entry for number, source in enumerate(data_sources(task.job.data)) for entry in scanned(folders[number], number, source)
    ]
    task.index.write_bytes(Index(tuple(entries)).to_jsonl())
    return replace(task, pictures=pictures, more_pictures=tuple(folders[1:]), total_steps=total_steps)


def scanned(folder: Path, number: int, source: DataSource) -> list[Entry]:
    records = list_records(folder, image_column="image", caption_column="text")
    found = scan(folder, records=records, workers=0).index.entries
    return [replace(entry, source=number, captions=source.captions(entry.captions)) for entry in found]

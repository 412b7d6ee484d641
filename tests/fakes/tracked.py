"""What trackers show: TensorBoard's folder through its own reader, and a Weights & Biases run file through its messages."""

import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from fakes.memory_store import MemoryStore

Series = list[tuple[int, Any]]


@dataclass
class Board:
    """By tag: (step, value) as they are shown, in their order."""

    scalars: dict[str, Series]
    images: dict[str, Series]
    """PNG bytes."""

    texts: dict[str, Series]
    descriptions: dict[str, str]


def board_of(folder: Path) -> Board:
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={}, tensor_size_guidance=dict.fromkeys(("scalars", "images", "text"), 0))
    reader.Reload()
    found: dict[str, dict[str, Series]] = {"scalars": {}, "images": {}, "text": {}}
    for plugin, tags in found.items():
        if plugin not in reader.ActivePlugins():
            continue
        for tag in reader.PluginTagToContent(plugin):
            tags[tag] = [(event.step, value_of(event.tensor_proto, plugin)) for event in reader.Tensors(tag)]
    descriptions = {tag: reader.SummaryMetadata(tag).summary_description for tag in found["images"]}
    return Board(found["scalars"], found["images"], found["text"], descriptions)


def value_of(tensor: Any, plugin: str) -> Any:
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(tensor)
    if plugin == "scalars":
        return array.item()
    return array[2] if plugin == "images" else array[0].decode()


def png_bytes() -> bytes:
    """A picture of 8 x 8 pixels."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(out, "png")
    return out.getvalue()


def board_in(store: MemoryStore, folder: Path) -> Board:
    """Of what lies in memory, written into a new folder."""
    folder.mkdir(parents=True)
    for key, data in store.objects.items():
        if key.startswith("tensorboard/"):
            (folder / Path(key).name).write_bytes(data)
    return board_of(folder)


# ---- Weights & Biases ------------------------------------------------------------------------------------------------------

# The file is LevelDB's log (https://github.com/google/leveldb/blob/main/doc/log_format.md) behind a header of 7 bytes, with
# zlib's CRC-32; the records are the messages of wandb/proto/wandb_internal.proto.
HEADER, BLOCK, CHUNK_HEAD, FULL, LAST = 7, 32768, 7, 1, 4


@dataclass
class WandbFile:
    rows: list[dict[str, Any]] = field(default_factory=list)
    """History rows in their order, each with `_step`."""

    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""
    host: str = ""
    exit_code: int | None = None

    def series(self, name: str) -> Series:
        return [(row["_step"], row[name]) for row in self.rows if name in row]


def wandb_file_of(path: Path) -> WandbFile:
    from wandb.proto.wandb_internal_pb2 import Record

    file = WandbFile()
    for data in records_in(path.read_bytes()):
        record = Record.FromString(data)
        match record.WhichOneof("record_type"):
            case "history":
                file.rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
                assert file.rows[-1]["_step"] == record.history.step.num
            case "run":
                file.run_id, file.host = record.run.run_id, record.run.host
                file.config |= {update.key: json.loads(update.value_json) for update in record.run.config.update}
            case "summary":
                file.summary |= {"/".join(u.nested_key) or u.key: json.loads(u.value_json) for u in record.summary.update}
            case "exit":
                file.exit_code = record.exit.exit_code
    return file


def records_in(data: bytes) -> Iterator[bytes]:
    assert data.startswith(b":W&B")
    at, record = HEADER, b""
    while at + CHUNK_HEAD <= len(data):
        left = BLOCK - at % BLOCK
        if left < CHUNK_HEAD:
            at += left
            continue
        checksum, size, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + CHUNK_HEAD : at + CHUNK_HEAD + size]
        assert zlib.crc32(bytes([kind]) + part) == checksum
        record += part
        at += CHUNK_HEAD + size
        if kind in (FULL, LAST):
            yield record
            record = b""

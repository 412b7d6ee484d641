"""TensorBoard's event files, as bytes: made and read with its own protocol buffers and record format, without TensorFlow.

Every file begins with the version and with a session log whose text is ours: what all files up to this one tell together.
Readers look at a session log's status alone (tensorboard/backend/event_processing/event_accumulator.py), and only at START.
"""

# tensorboard has no types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import io
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

from sdjob.core.errors import DataError
from sdjob.track.row import Picture, Row

VERSION = "brain.Event:2"  # tensorboard/summary/writer/event_file_writer.py
SESSION_CHECKPOINT = 3  # tensorboard/compat/proto/event.proto: proto().SessionLog.CHECKPOINT
DT_STRING = 7  # tensorboard/compat/proto/types.proto
RECORD_HEAD, RECORD_FOOT = 12, 4  # bytes; tensorboard/summary/writer/record_writer.py


@dataclass(frozen=True)
class Told:
    """What the files of a run show so far."""

    through: int = 0
    """The last step."""

    job_sha256: str = ""
    digest: str = ""
    """Of the result that was told last."""


@cache
def proto() -> Any:
    """TensorBoard's messages by their names, which no type checker knows."""
    from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2

    modules: tuple[Any, ...] = (event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2)
    return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


def header(told: Told, *, time_s: float) -> list[bytes]:
    log = proto().SessionLog(status=SESSION_CHECKPOINT, msg=json.dumps({"sdjob": asdict(told)}))
    events = (proto().Event(wall_time=time_s, file_version=VERSION), proto().Event(wall_time=time_s, session_log=log))
    return [framed(event.SerializeToString()) for event in events]


def scalars(row: Row) -> bytes:
    return summary([proto().Summary.Value(tag=tag, simple_value=number) for tag, number in row.values.items()], row=row)


def picture(row: Row, drawn: Picture, *, png: bytes) -> bytes:
    """The prompt stands under the picture's name."""
    plugin = proto().SummaryMetadata.PluginData(plugin_name="images")
    title = f"validation/{drawn.name}"
    metadata = proto().SummaryMetadata(display_name=title, summary_description=drawn.prompt, plugin_data=plugin)
    width, height = struct.unpack(">II", png[16:24])  # https://www.w3.org/TR/png-3/#11IHDR
    image = proto().Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
    return summary([proto().Summary.Value(tag=title, metadata=metadata, image=image)], row=row)


def text(tag: str, markdown: str, *, row: Row) -> bytes:
    metadata = proto().SummaryMetadata(plugin_data=proto().SummaryMetadata.PluginData(plugin_name="text"))
    shape = proto().TensorShapeProto(dim=[proto().TensorShapeProto.Dim(size=1)])
    tensor = proto().TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[markdown.encode()])
    return summary([proto().Summary.Value(tag=tag, metadata=metadata, tensor=tensor)], row=row)


def summary(values: list[Any], *, row: Row) -> bytes:
    return framed(proto().Event(wall_time=row.time_s, step=row.step, summary=proto().Summary(value=values)).SerializeToString())


def prompts_of(pictures: Sequence[Picture]) -> str:
    """A list in Markdown: which prompt has which number."""
    prompts = {drawn.name.partition("-")[0]: drawn.prompt for drawn in pictures}
    return "\n".join(f"- {number}: {prompt}" for number, prompt in prompts.items())


def framed(event: bytes) -> bytes:
    """A record; a file is nothing but records. Its checksum is computed in Python, so once and not at every try to write it."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    out = io.BytesIO()
    RecordWriter(out).write(event)
    return out.getvalue()


def told_in(data: bytes, *, where: str) -> Told:
    """What a file of ours says that all up to it tell. DataError where it does not."""
    try:
        events = map(proto().Event.FromString, records_in(data))
        log = next(event.session_log.msg for event in events if event.HasField("session_log"))
        return Told(**json.loads(log)["sdjob"])
    except Exception as error:  # protobuf's own have no common base but this one
        raise DataError(f"is no event file of sdjob's: {type(error).__name__} {error}", where=where) from error


def records_in(data: bytes) -> Iterator[bytes]:
    """ValueError at one that is not as it was written."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    start = 0
    while start < len(data):
        (size,) = struct.unpack_from("<Q", data, start)
        record = data[start + RECORD_HEAD : start + RECORD_HEAD + size]
        (checksum,) = struct.unpack_from("<I", data, start + RECORD_HEAD + size)
        if checksum != masked_crc32c(record):
            raise ValueError(f"the record at byte {start} is damaged")
        yield record
        start += RECORD_HEAD + size + RECORD_FOOT

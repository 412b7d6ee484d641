"""The same pictures and captions in every layout that people keep them in, as objects by key."""

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fakes.pictures import COLOURS, SHAPES, drawn_picture

Objects = dict[str, bytes]


@dataclass(frozen=True)
class Pair:
    picture: bytes | None
    caption: str | None
    extension: str = "png"


def drawn_pairs(count: int, *, seed: int = 0) -> list[Pair]:
    """Pictures of two formats, each with one caption."""
    pairs: list[Pair] = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        colour, shape = str(rng.choice(COLOURS)), str(rng.choice(SHAPES))
        extension, kind = [("png", "PNG"), ("jpg", "JPEG")][number % 2]
        file = io.BytesIO()
        drawn_picture(rng, colour=colour, shape=shape).resize((12, 9)).save(file, format=kind)
        pairs.append(Pair(file.getvalue(), f"{number}: a {colour} {shape}", extension))
    return pairs


def as_folder(pairs: Sequence[Pair], *, metadata: str = "jsonl") -> Objects:
    names = [f"{number:09d}.{pair.extension}" for number, pair in enumerate(pairs)]
    objects = {name: pair.picture for name, pair in zip(names, pairs, strict=True) if pair.picture is not None}
    rows = [{"file_name": name, "text": pair.caption} for name, pair in zip(names, pairs, strict=True)]
    if metadata == "txt":
        return objects | {
            name.rpartition(".")[0] + ".txt": str(row["text"]).encode() for name, row in zip(names, rows, strict=True)
        }
    return objects | {f"metadata.{metadata}": table_bytes(rows, ending=metadata)}


def table_bytes(rows: Sequence[Mapping[str, Any]], *, ending: str) -> bytes:
    if ending == "parquet":
        return parquet_bytes(pa.Table.from_pylist(list(rows)))
    if ending == "csv":
        return ("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n").encode()
    if ending == "json":
        return json.dumps(list(rows)).encode()
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def embedded_table(pairs: Sequence[Pair], *, image: str = "image", text: str = "text", raw: bool = False) -> pa.Table:
    pictures = [pair.picture if raw else {"bytes": pair.picture, "path": None} for pair in pairs]
    kind = pa.binary() if raw else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {image: pa.array(pictures, kind), text: pa.array([pair.caption for pair in pairs], pa.string())}
    return pa.table(columns)


def parquet_bytes(table: pa.Table, *, row_group_size: int = 3) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=row_group_size)
    return file.getvalue()


def arrow_bytes(table: pa.Table, *, stream: bool = True) -> bytes:
    file = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return file.getvalue()


def as_parquet(pairs: Sequence[Pair], **options: Any) -> Objects:
    return {"data.parquet": parquet_bytes(embedded_table(pairs, **options))}


def as_arrow(pairs: Sequence[Pair]) -> Objects:
    return {"data.arrow": arrow_bytes(embedded_table(pairs))}


def as_shards(pairs: Sequence[Pair], *, count: int) -> Objects:
    """As `push_to_hub` names them."""
    size = -(-len(pairs) // count)
    chunks = [pairs[number * size : (number + 1) * size] for number in range(count)]
    return {
        f"data/train-{number:05d}-of-{count:05d}.parquet": parquet_bytes(embedded_table(chunk))
        for number, chunk in enumerate(chunks)
    }


def tar_bytes(members: Sequence[tuple[str | tarfile.TarInfo, bytes]], *, compress: bool = False) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(file.getvalue()) if compress else file.getvalue()


def samples_of(pairs: Sequence[Pair], *, captions: str = "txt") -> list[tuple[str | tarfile.TarInfo, bytes]]:
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for number, pair in enumerate(pairs):
        if pair.picture is not None:
            members.append((f"{number:09d}.{pair.extension}", pair.picture))
        note = (pair.caption or "") if captions == "txt" else json.dumps({"caption": pair.caption})
        members.append((f"{number:09d}.{captions}", note.encode()))
    return members


def as_tar(pairs: Sequence[Pair], *, compress: bool = False, captions: str = "txt") -> Objects:
    return {f"data.tar{'.gz' if compress else ''}": tar_bytes(samples_of(pairs, captions=captions), compress=compress)}


def as_paths(pairs: Sequence[Pair], *, ending: str) -> Objects:
    """A table of paths, and the pictures beside it."""
    names = [f"pictures/{number:09d}.{pair.extension}" for number, pair in enumerate(pairs)]
    rows = [{"image": name, "text": pair.caption} for name, pair in zip(names, pairs, strict=True)]
    objects = {name: pair.picture for name, pair in zip(names, pairs, strict=True) if pair.picture is not None}
    return objects | {f"data.{ending}": table_bytes(rows, ending=ending)}


def as_base64(pairs: Sequence[Pair]) -> Objects:
    rows = [{"image": {"bytes": base64.b64encode(pair.picture or b"").decode()}, "text": pair.caption} for pair in pairs]
    return {"data.jsonl": table_bytes(rows, ending="jsonl")}


LAYOUTS: dict[str, Callable[[Sequence[Pair]], Objects]] = {
    "folder with jsonl": as_folder,
    "folder with csv": lambda pairs: as_folder(pairs, metadata="csv"),
    "folder with parquet": lambda pairs: as_folder(pairs, metadata="parquet"),
    "folder with txt": lambda pairs: as_folder(pairs, metadata="txt"),
    "parquet": as_parquet,
    "parquet, raw": lambda pairs: as_parquet(pairs, raw=True),
    "parquet, paths": lambda pairs: as_paths(pairs, ending="parquet"),
    "parquet shards": lambda pairs: as_shards(pairs, count=2),
    "arrow": as_arrow,
    "webdataset": as_tar,
    "webdataset, compressed": lambda pairs: as_tar(pairs, compress=True),
    "webdataset, json": lambda pairs: as_tar(pairs, captions="json"),
    "jsonl, paths": lambda pairs: as_paths(pairs, ending="jsonl"),
    "json, paths": lambda pairs: as_paths(pairs, ending="json"),
    "csv, paths": lambda pairs: as_paths(pairs, ending="csv"),
    "jsonl, base64": as_base64,
}


def write_objects(folder: Path, objects: Mapping[str, bytes]) -> None:
    for key, content in objects.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)

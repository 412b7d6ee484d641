"""Image folders that tests make, and what is read of them."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from sdjob.data.records import Record, list_records


def draw(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(folder / name, format="PNG")


def write_jsonl(folder: Path, *rows: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def records(folder: Path, *, image_column: str = "image", caption_column: str = "text") -> list[Record]:
    return list_records(folder, image_column=image_column, caption_column=caption_column)


def captions(folder: Path, **columns: str) -> dict[str, tuple[str, ...]]:
    return {record.id: record.captions for record in records(folder, **columns)}

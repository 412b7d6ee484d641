"""Picture folders drawn on the spot: small, of several sizes and modes, the same bytes for the same seed."""

import csv
import io
import json
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ("red", "pink", "yellow", "green", "cyan", "blue", "purple", "brown")
SHAPES = ("circle", "square", "triangle")
# Mode and extension of one picture after the other; between them the ways in which real folders are mixed.
KINDS = (("RGB", "png"), ("RGBA", "png"), ("L", "png"), ("RGB", "jpg"), ("P", "png"), ("RGB", "webp"))


def write_picture_folder(
    folder: Path, *, count: int = 12, seed: int = 0, captions: Literal["jsonl", "csv", "txt"] = "jsonl"
) -> None:
    """`count` good pictures of 48 to 112 pixels a side, each with one caption such as "a red circle"."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        mode, extension = KINDS[number % len(KINDS)]
        colour, shape = str(rng.choice(COLOURS)), str(rng.choice(SHAPES))
        name = f"picture-{number:04d}.{extension}"
        drawn_picture(rng, colour=colour, shape=shape).convert(mode).save(folder / name)
        rows.append({"file_name": name, "text": f"a {colour} {shape}"})
    _write_captions(folder, rows=rows, style=captions)


def drawn_picture(rng: np.random.Generator, *, colour: str, shape: str) -> Image.Image:
    """One shape in one colour on a pale ground, with a little noise so that no two pictures are equal."""
    width, height = (int(side) for side in rng.integers(48, 113, size=2))
    picture = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(200, 256, size=3)))
    box = (width // 5, height // 5, width - width // 5, height - height // 5)
    draw = ImageDraw.Draw(picture)
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon([(box[0], box[3]), (box[2], box[3]), (width // 2, box[1])], fill=colour)
    noise = rng.integers(-6, 7, size=(height, width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _write_captions(folder: Path, *, rows: list[dict[str, str]], style: str) -> None:
    if style == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif style == "csv":
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, ["file_name", "text"])
        writer.writeheader()
        writer.writerows(rows)
        (folder / "metadata.csv").write_text(table.getvalue(), encoding="utf-8", newline="")
    else:
        for row in rows:
            (folder / row["file_name"]).with_suffix(".txt").write_text(row["text"] + "\n", encoding="utf-8")

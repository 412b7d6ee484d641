"""Draws the quickstart's pictures: one shape on a background, in one of two styles.

The base model is trained on the `plain` style; the quickstart's LoRA learns the `pastel` style of the same captions.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Style = Literal["plain", "pastel"]
RGB = tuple[int, int, int]

SIZE_PX = 64
OVERSAMPLING = 4  # drawn at four times the size and reduced: smooth edges without an anti-aliasing library
PASTEL_WHITE = 0.55  # the share of white that a pastel colour holds

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS: dict[str, RGB] = {
    "red": (220, 30, 40),
    "orange": (245, 135, 20),
    "yellow": (250, 220, 40),
    "green": (40, 160, 60),
    "cyan": (40, 200, 220),
    "blue": (40, 70, 210),
    "purple": (145, 50, 170),
    "black": (25, 25, 30),
}


@dataclass(frozen=True)
class Scene:
    """What a picture shows, apart from its style. Lengths are shares of the picture's side."""

    shape: str
    colour: str
    background: str
    centre_x: float = 0.5
    centre_y: float = 0.5
    radius: float = 0.29

    @property
    def caption(self) -> str:
        return caption(self.shape, self.colour, self.background)


def caption(shape: str, colour: str, background: str) -> str:
    article = "an" if colour[0] in "aeiou" else "a"
    background_article = "an" if background[0] in "aeiou" else "a"
    return f"{article} {colour} {shape} on {background_article} {background} background"


def all_subjects() -> list[tuple[str, str, str]]:
    """Every (shape, colour, background) whose colour differs from its background."""
    return [(s, c, b) for s in SHAPES for c in COLOURS for b in COLOURS if c != b]


def styled(colour: RGB, *, style: Style) -> RGB:
    if style == "plain":
        return colour
    red, green, blue = (round(255 * PASTEL_WHITE + (1 - PASTEL_WHITE) * channel) for channel in colour)
    return red, green, blue


def outline(shape: str, *, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """The polygon of a shape around (x, y); every shape fills the square of half side `radius`."""
    if shape == "circle":
        angles = [2 * math.pi * i / 90 for i in range(90)]
        return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
    if shape == "square":
        unit = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    elif shape == "triangle":
        unit = [(0, -1), (1, 1), (-1, 1)]
    elif shape == "cross":
        t = 1 / 3
        unit = [(-t, -1), (t, -1), (t, -t), (1, -t), (1, t), (t, t), (t, 1), (-t, 1), (-t, t), (-1, t), (-1, -t), (-t, -t)]
    else:
        raise ValueError(f"unknown shape {shape!r}; there are {', '.join(SHAPES)}")
    return [(x + radius * dx, y + radius * dy) for dx, dy in unit]


def draw(scene: Scene, *, style: Style = "plain") -> Image.Image:
    colour, background = (styled(COLOURS[name], style=style) for name in (scene.colour, scene.background))
    return paint(scene, colour=colour, background=background)


def paint(scene: Scene, *, colour: RGB, background: RGB) -> Image.Image:
    """The scene's shape in any colours."""
    side = SIZE_PX * OVERSAMPLING
    image = Image.new("RGB", (side, side), background)
    points = outline(scene.shape, x=scene.centre_x * side, y=scene.centre_y * side, radius=scene.radius * side)
    ImageDraw.Draw(image).polygon(points, fill=colour)
    return image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX)


def random_scenes(count: int, *, seed: int) -> list[Scene]:
    """`count` scenes; every subject comes up before any comes up twice more than another."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    subjects = all_subjects()
    order = np.concatenate([rng.permutation(len(subjects)) for _ in range(-(-count // len(subjects)))])[:count]
    places = rng.uniform(0.42, 0.58, (count, 2))
    radii = rng.uniform(0.24, 0.32, count)
    return [
        Scene(*subjects[k], centre_x=float(x), centre_y=float(y), radius=float(r))
        for k, (x, y), r in zip(order, places, radii, strict=True)
    ]


def write_folder(folder: Path, *, count: int, style: Style, seed: int) -> None:
    """An image folder as `data.source` takes it: PNG files and a metadata.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    for number, scene in enumerate(random_scenes(count, seed=seed)):
        name = f"{number:04d}.png"
        draw(scene, style=style).save(folder / name)
        rows.append(json.dumps({"file_name": name, "text": scene.caption}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--style", choices=("plain", "pastel"), default="pastel")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    write_folder(args.folder, count=args.count, style=args.style, seed=args.seed)


if __name__ == "__main__":
    main()

"""The quickstart's own parts: pictures as drawn, a meter that reads them, a base model that is small and whole."""

import json
from pathlib import Path

import pytest
from PIL import Image

from demo import grid, shares, unseen_scenes
from meter import read
from shapes import SHAPES, all_subjects, draw, random_scenes, write_folder

QUICKSTART = Path(__file__).parents[2] / "jobspecs" / "quickstart"
LARGEST_BASE_BYTES = 16 * 10**6


@pytest.mark.parametrize("style", ["plain", "pastel"])
def test_the_meter_reads_what_was_drawn(style):
    for scene in random_scenes(224, seed=9):
        reading = read(draw(scene, style=style))
        assert (reading.shape, reading.colour, reading.background) == (scene.shape, scene.colour, scene.background)
        assert reading.style == style


def test_the_meter_survives_a_picture_without_a_shape():
    assert read(Image.new("RGB", (64, 64), (250, 220, 40))).background == "yellow"


def test_the_committed_pictures_are_those_that_the_script_draws(tmp_path):
    write_folder(tmp_path, count=128, style="pastel", seed=1)
    drawn = {path.name: path for path in tmp_path.iterdir()}
    assert drawn.keys() == {path.name for path in (QUICKSTART / "pictures").iterdir()}
    for name, path in drawn.items():
        if path.suffix == ".png":
            with Image.open(path) as ours, Image.open(QUICKSTART / "pictures" / name) as committed:
                assert ours.tobytes() == committed.tobytes(), name
        else:
            assert path.read_bytes() == (QUICKSTART / "pictures" / name).read_bytes()


def test_the_demo_asks_for_nothing_that_was_trained_on():
    lines = (QUICKSTART / "pictures" / "metadata.jsonl").read_text().splitlines()
    trained = {json.loads(line)["text"] for line in lines}
    asked = {scene.caption for scene in unseen_scenes()}
    assert len(asked) == 96
    assert not asked & trained
    assert {caption.split()[2] for caption in asked} == set(SHAPES)
    assert len(trained) + len(asked) == len(all_subjects())


def test_shares_and_grid():
    scenes = unseen_scenes()[::24]
    before, after = ([draw(scene, style=style) for scene in scenes] for style in ("plain", "pastel"))
    assert shares([read(p) for p in before], scenes=scenes)["new style"] == 0
    assert set(shares([read(p) for p in after], scenes=scenes).values()) == {100}
    assert shares([read(p) for p in reversed(after)], scenes=scenes)["colour right"] < 100
    sheet = grid(before, after, scenes=scenes)
    assert sheet.width > sheet.height > 64


def test_the_base_model_is_small_and_whole():
    base = QUICKSTART / "base"
    assert sum(path.stat().st_size for path in base.rglob("*") if path.is_file()) <= LARGEST_BASE_BYTES
    assert {p.name for p in base.iterdir()} >= {"model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"}

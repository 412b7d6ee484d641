"""Base models that are of another kind, in another format, or damaged."""

import json
from collections.abc import Mapping

import pytest

from fakes.folders import EMPTY_WEIGHTS, MODEL_FILES, write_files
from fakes.weather import Weather

SAFE = ".safetensors"
UNET = "unet/model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3438167540\n"
TENSOR = {"weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
HEADER = json.dumps(TENSOR).encode()
WHOLE = len(HEADER).to_bytes(8, "little") + HEADER + b"\0" * 16


def renamed(*, ending: str) -> dict[str, bytes]:
    """The weights under another ending."""
    return {name.replace(SAFE, ending): data for name, data in MODEL_FILES.items()}


CASES: dict[str, tuple[Mapping[str, bytes], int]] = {
    "pickles": (renamed(ending=".bin"), 66),
    "flax": (renamed(ending=".msgpack"), 66),
    "another-variant": (renamed(ending=".fp16.safetensors"), 66),
    "no-model": ({"letter.txt": b"somebody's letter"}, 66),
    "one-file": ({"v1-5-pruned-emaonly.safetensors": WHOLE, "v1-inference.yaml": b"model: {}"}, 66),
    "no-unet": ({name: data for name, data in MODEL_FILES.items() if not name.startswith("unet/")}, 66),
    "half-of-sdxl": ({**MODEL_FILES, "text_encoder_2/config.json": b"{}"}, 66),
    "inpainting": ({**MODEL_FILES, "unet/config.json": b'{"in_channels": 9}'}, 64),
    "config-broken": ({**MODEL_FILES, "unet/config.json": b'{"in_channels": 4,'}, 65),
    "weights-cut-short": ({**MODEL_FILES, UNET: WHOLE[:-7]}, 65),
    "weights-are-html": ({**MODEL_FILES, UNET: b"<!DOCTYPE html><html><body>Sign in</body></html>"}, 65),
    "lfs-pointer": ({**MODEL_FILES, UNET: POINTER}, 65),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder(case: str, weather: Weather):
    files, code = CASES[case]
    weather.job(model__source="base")
    write_files(files, weather.folder / "base")
    weather.says(f"model-{case}", weather.run(), code=code)


def test_a_variant_that_the_model_does_not_have(weather):
    weather.job(model__variant="fp16")
    weather.says("model-variant-missing", weather.run(), code=66)


@pytest.mark.parametrize("case", ["pickles", "half-of-sdxl", "weights-cut-short"])
def test_a_bucket(case: str, seaweed, weather):
    """Of what cannot be used nothing is fetched, and nothing that is cut short is used."""
    files, code = CASES[case]
    bucket = weather.s3(seaweed, files={f"base/{name}": data for name, data in files.items()})
    weather.job(model__source=f"s3://{bucket}/base")
    weather.says(f"model-s3-{case}", weather.run(), code=code)


@pytest.mark.parametrize(
    ("case", "files"),
    [
        ("no-lora", {"letter.txt": b"somebody's letter"}),
        ("several", {"a.safetensors": WHOLE, "b.safetensors": WHOLE}),
        ("cut-short", {"a.safetensors": WHOLE[:-7]}),
    ],
)
def test_what_the_weights_start_from(case: str, files: Mapping[str, bytes], weather):
    weather.job(train__init_from="start")
    write_files(files, weather.folder / "start")
    weather.says(f"init-from-{case}", weather.run(), code={"no-lora": 66, "several": 64, "cut-short": 65}[case])


def test_mended_it_goes_on(weather):
    """As far as the next thing that is wrong."""
    weather.job(model__source="base", train__init_from="lora.safetensors")
    write_files({**MODEL_FILES, UNET: EMPTY_WEIGHTS + b" "}, weather.folder / "base")
    assert "bytes longer" in weather.run().error
    (weather.folder / "base" / UNET).write_bytes(EMPTY_WEIGHTS)
    assert "lora.safetensors does not exist" in weather.run().error

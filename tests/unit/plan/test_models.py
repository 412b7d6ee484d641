"""Which model a job trains, as far as sizes depend on it."""

import json

import pytest

from fakes.tiny_models import write_tiny_model
from sdjob.core.errors import MissingError, UsageError
from sdjob.plan.families import SD1, SD2, SD2_BASE, SDXL
from sdjob.plan.models import known_model
from sdjob.spec.job import ModelSpec


def known(source, base):
    return known_model(ModelSpec(source=str(source)), base=base)


@pytest.mark.parametrize(
    ("source", "shape", "assumed"),
    [
        ("hf://stable-diffusion-v1-5/stable-diffusion-v1-5", SD1, False),
        ("hf://CompVis/stable-diffusion-v1-4@main", SD1, False),
        ("hf://stabilityai/stable-diffusion-2-1-base", SD2_BASE, False),
        ("hf://stabilityai/stable-diffusion-xl-base-1.0", SDXL, False),
        ("hf://me/my-sdxl-tune", SDXL, True),
        ("s3://bucket/models/sd2-1-tuned", SD2, True),
        ("gs://bucket/whatever", SD1, True),
        ("/mnt/models/sdxl", SDXL, True),
    ],
)
def test_by_name(source, shape, assumed, tmp_path):
    found = known(source, tmp_path)
    assert (found.shape, found.assumed) == (shape, assumed)
    assert ("assumed" in found.whence) == assumed


@pytest.fixture
def folder(tmp_path):
    write_tiny_model(tmp_path / "model", family="sd2")
    return tmp_path / "model"


def test_a_folders_own_configuration(folder, tmp_path):
    found = known("model", tmp_path)
    config = json.loads((folder / "unet/config.json").read_text())
    assert found.shape.unet["block_out_channels"] == config["block_out_channels"]
    assert found.text_tokens == 16
    assert not found.assumed


def test_what_a_configuration_leaves_out_is_diffusers_default(folder, tmp_path):
    config = folder / "unet/config.json"
    config.write_text(json.dumps({"cross_attention_dim": 768}))
    assert sum(layer.params for layer in known("model", tmp_path).unet(width=512, height=512)) == 859_520_964


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("unet", {"block_out_channels": "wide"}, "block_out_channels is 'wide', where Stable Diffusion has such as"),
        ("unet", {"block_out_channels": [64, -1]}, "block_out_channels is [64, -1]"),
        ("unet", {"block_out_channels": [64, 64, 64]}, "are not of one length"),
        ("unet", {"cross_attention_dim": [768, 768]}, "cross_attention_dim is [768, 768]"),
        ("unet", {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "AttnDownBlock2D"),
        ("vae", {"layers_per_block": 0}, "layers_per_block is 0"),
        ("text_encoder", {"hidden_size": None}, "hidden_size is None"),
    ],
)
def test_a_configuration_that_is_none_of_stable_diffusion(folder, tmp_path, part, change, told):
    config = folder / part / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(UsageError) as caught:
        known("model", tmp_path).unet(width=64, height=64)
    assert told in str(caught.value)
    assert f"{part}/config.json" in str(caught.value)


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(MissingError):
        known("model", tmp_path)

"""A model's options: those that are understood, and every other one refused by its name."""

import json

import pytest

from sdjob.core.errors import MissingError, UsageError
from sdjob.train_flax.models.config import TextConfig, UNetConfig, VaeConfig


def read(kind, folder, **options):
    (folder / "config.json").write_text(json.dumps(options))
    return kind.read(folder / "config.json")


def test_unknown_and_unsupported_options_are_all_named(tmp_path):
    with pytest.raises(UsageError) as caught:
        read(UNetConfig, tmp_path, resnet_time_scale_shift="scale_shift", gligen_boxes=4, class_embed_type="projection")
    assert str(caught.value) == (
        f"{tmp_path / 'config.json'}: the flax backend has no model of this configuration:\n"
        "  class_embed_type is 'projection'; supported: None\n"
        "  resnet_time_scale_shift is 'scale_shift'; supported: 'default'\n"
        "  gligen_boxes is 4; this option is not known\n"
        "Use backend torch for this model."
    )


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (UNetConfig, {"down_block_types": ["KDownBlock2D"] * 4}, "down_block_types has 'KDownBlock2D'"),
        (UNetConfig, {"attention_head_dim": [5, 10]}, "attention_head_dim is [5, 10]; it must be a whole number, or 4 of them"),
        (UNetConfig, {"transformer_layers_per_block": [1, [1, 2], 1, 1]}, "transformer_layers_per_block is"),
        (UNetConfig, {"norm_num_groups": None}, "norm_num_groups is None; it must be a number"),
        (UNetConfig, {"addition_embed_type": "image"}, "addition_embed_type is 'image'"),
        (UNetConfig, {"time_cond_proj_dim": 256}, "time_cond_proj_dim is 256; supported: None"),
        (VaeConfig, {"latents_mean": [0.1, 0.2]}, "latents_mean is [0.1, 0.2]"),
        (VaeConfig, {"up_block_types": ["AttnUpDecoderBlock2D"]}, "up_block_types has 'AttnUpDecoderBlock2D'"),
        (TextConfig, {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        (TextConfig, {"model_type": "t5"}, "model_type is 't5'"),
        (TextConfig, {"eos_token_id": [1, 2]}, "eos_token_id is [1, 2]; it must be a number"),
    ],
)
def test_refused(tmp_path, kind, options, sentence):
    with pytest.raises(UsageError) as caught:
        read(kind, tmp_path, **options)
    assert sentence in str(caught.value)


def test_bookkeeping_and_switches_that_change_nothing_are_taken(tmp_path):
    config = read(
        UNetConfig, tmp_path, _class_name="UNet2DConditionModel", _diffusers_version="0.6.0", sample_size=64,
        upcast_attention=True, act_fn="swish", mid_block_only_cross_attention=None,
    )  # fmt: skip
    assert config == read(UNetConfig, tmp_path)
    assert read(TextConfig, tmp_path, transformers_version="4.22.0", torch_dtype="float16", dropout=0.0) == read(
        TextConfig, tmp_path
    )


def test_one_number_for_all_levels(tmp_path):
    config = read(UNetConfig, tmp_path, attention_head_dim=[5, 10, 20, 20], transformer_layers_per_block=2)
    assert config.num_heads == (5, 10, 20, 20)
    assert config.depths == (2, 2, 2, 2)
    assert config.down_attends == (True, True, True, False)
    assert config.up_attends == (False, True, True, True)


def test_no_config(tmp_path):
    with pytest.raises(MissingError):
        UNetConfig.read(tmp_path / "config.json")

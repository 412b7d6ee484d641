"""The flax text encoders against transformers' own, in float32: SD 1.x, SD 2.x, and both of SDXL's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from fakes.flax_parity import distance, write_family
from sdjob.train_flax.models.clip_text import end_positions
from sdjob.train_flax.models.folder import read_text_encoder, read_text_encoder_with_projection
from sdjob.train_flax.models.layers import Compute

LEGACY = 2
PLAIN, PROJECTED = (CLIPTextModel, read_text_encoder), (CLIPTextModelWithProjection, read_text_encoder_with_projection)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in ("sd1", "sd2", "sdxl"):
        write_family(folder, family)
    return folder


def caption_ids(*, num_ids, end):
    """Two captions of different length, each closed by the end and padded with it as Stable Diffusion 1 pads."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(4, min(num_ids, end) if end > 4 else num_ids, (2, 16), generator=generator)
    ids[0, 9:], ids[1, 13:] = end, end
    return ids


def states_of(reader, folder, ids, **compute):
    graph, params = nnx.split(reader(folder, compute=Compute(**compute)))
    return jax.jit(lambda params, ids: nnx.merge(graph, params)(ids))(params, ids.numpy())


@pytest.mark.parametrize(
    ("where", "kinds"),
    [("sd1/text_encoder", PLAIN), ("sd2/text_encoder", PLAIN), ("sdxl/text_encoder", PLAIN), ("sdxl/text_encoder_2", PROJECTED)],
)
@pytest.mark.parametrize("legacy", [False, True])
@torch.no_grad()
def test_states_and_pooling(models, tmp_path, where, kinds, legacy):
    folder = models / where
    config = json.loads((folder / "config.json").read_text())
    end = config["eos_token_id"]
    if legacy:
        config["eos_token_id"] = LEGACY
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    kind, reader = kinds
    ids = caption_ids(num_ids=config["vocab_size"], end=config["vocab_size"] - 1 if legacy else end)

    theirs = kind.from_pretrained(tmp_path)(ids, output_hidden_states=True)
    ours = states_of(reader, tmp_path, ids)
    assert distance(ours.last_BTD, theirs.last_hidden_state) <= 1e-4
    assert len(ours.layers) == len(theirs.hidden_states) == config["num_hidden_layers"] + 1
    for own, other in zip(ours.layers, theirs.hidden_states, strict=True):
        assert distance(own, other) <= 1e-4
    assert distance(ours.pooled_BD, theirs.text_embeds if kinds is PROJECTED else theirs.pooler_output) <= 1e-4


def test_the_end_is_the_first_end_token_or_in_legacy_configurations_the_highest_id():
    ids = jnp.array([[1, 9, 30, 5, 5, 5], [1, 5, 40, 8, 5, 5]])
    assert end_positions(ids, eos_id=5).tolist() == [3, 1]
    assert end_positions(ids, eos_id=LEGACY).tolist() == [2, 2]


def test_bf16_runs(models):
    ids = caption_ids(num_ids=100, end=99)
    exact = states_of(read_text_encoder, models / "sd1" / "text_encoder", ids)
    rounded = states_of(read_text_encoder, models / "sd1" / "text_encoder", ids, dtype=jnp.bfloat16)
    assert rounded.layers[-1].dtype == jnp.bfloat16
    off = np.abs(rounded.last_BTD - exact.last_BTD).max()
    assert 0 < off <= 0.05 * np.abs(exact.last_BTD).max()


def test_too_many_tokens_are_refused(models):
    encoder = read_text_encoder(models / "sd1" / "text_encoder")
    with pytest.raises(ValueError, match="more than the text encoder's 16"):
        encoder(jnp.zeros((1, 17), jnp.int32))

"""Model folders as they are found: shards, variants, other precisions, old names; and what does not fit is named."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from flax import nnx
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from fakes.flax_parity import write_family
from sdjob.core.errors import MissingError, UsageError
from sdjob.train_flax.models import names
from sdjob.train_flax.models.folder import (
    read_text_encoder,
    read_text_encoder_with_projection,
    read_unet,
    read_vae,
    write_model,
)

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    return write_family(tmp_path_factory.mktemp("models"), "sdxl")


@pytest.fixture
def vae_folder(sdxl, tmp_path):
    """A copy of the VAE's folder to spoil."""
    folder = tmp_path / "vae"
    AutoencoderKL.from_pretrained(sdxl / "vae").save_pretrained(folder)
    return folder


def tensors_of(model):
    """Every parameter as torch would hold it."""
    return {
        name: torch.from_numpy(names.to_torch(path, np.array(variable.get_value())))
        for name, (path, variable) in names.parameters_of(model).items()
    }


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


def edit(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


class TestThereAndBack:
    @pytest.mark.parametrize(
        ("part", "reader", "kind"),
        [
            ("unet", read_unet, UNet2DConditionModel),
            ("vae", read_vae, AutoencoderKL),
            ("text_encoder", read_text_encoder, CLIPTextModel),
            ("text_encoder_2", read_text_encoder_with_projection, CLIPTextModelWithProjection),
        ],
    )
    def test_every_tensor_is_read_and_written_bit_for_bit(self, sdxl, tmp_path, part, reader, kind):
        model, theirs = reader(sdxl / part), kind.from_pretrained(sdxl / part).state_dict()
        assert_same(tensors_of(model), theirs)
        write_model(model, config=sdxl / part / "config.json", folder=tmp_path / "written")
        assert_same(dict(kind.from_pretrained(tmp_path / "written").state_dict()), theirs)
        assert_same(tensors_of(reader(tmp_path / "written")), theirs)


class TestForms:
    def test_shards(self, sdxl, tmp_path):
        theirs = UNet2DConditionModel.from_pretrained(sdxl / "unet")
        theirs.save_pretrained(tmp_path, max_shard_size="200KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        assert_same(tensors_of(read_unet(tmp_path)), theirs.state_dict())

    @pytest.mark.parametrize(("dtype", "sharded"), [(torch.float16, False), (torch.float16, True), (torch.bfloat16, False)])
    def test_a_variant_is_widened_to_float32(self, sdxl, tmp_path, dtype, sharded):
        theirs = UNet2DConditionModel.from_pretrained(sdxl / "unet", dtype=dtype)
        theirs.save_pretrained(tmp_path, variant="fp16", max_shard_size="200KB" if sharded else "10GB")
        assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == sharded
        assert_same(tensors_of(read_unet(tmp_path, variant="fp16")), {n: t.float() for n, t in theirs.state_dict().items()})
        with pytest.raises(MissingError, match=r"has neither diffusion_pytorch_model\.safetensors nor"):
            read_unet(tmp_path)

    def test_a_shard_without_its_tensor(self, sdxl, tmp_path):
        UNet2DConditionModel.from_pretrained(sdxl / "unet").save_pretrained(tmp_path, max_shard_size="200KB")
        index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
        listed = json.loads(index.read_text())
        listed["weight_map"]["conv_in.scale"] = listed["weight_map"]["conv_in.weight"]
        index.write_text(json.dumps(listed))
        with pytest.raises(UsageError, match=r"names tensors that its files do not hold: conv_in\.scale"):
            read_unet(tmp_path)

    def test_attention_names_of_stable_diffusion_1(self, vae_folder):
        expected = tensors_of(read_vae(vae_folder))
        old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

        def rename(tensors):
            for name in [name for name in tensors if ".attentions." in name]:
                for new, old in old_names.items():
                    if f".{new}." in name:
                        tensors[name.replace(new, old)] = tensors.pop(name)

        edit(vae_folder, rename)
        assert any(".proj_attn." in name for name in load_file(vae_folder / WEIGHTS))
        assert_same(tensors_of(read_vae(vae_folder)), expected)

    def test_text_encoder_of_older_transformers(self, sdxl, tmp_path):
        """Below `text_model.`, and with the buffer that they saved."""
        expected = tensors_of(read_text_encoder(sdxl / "text_encoder"))
        tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in expected.items()}
        tensors["text_model.embeddings.position_ids"] = torch.arange(16)[None]
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes((sdxl / "text_encoder" / "config.json").read_bytes())
        assert_same(tensors_of(read_text_encoder(tmp_path)), expected)

    def test_written_text_encoder_is_below_text_model(self, sdxl, tmp_path):
        write_model(
            read_text_encoder(sdxl / "text_encoder"), config=sdxl / "text_encoder" / "config.json", folder=tmp_path / "new"
        )
        assert all(name.startswith("text_model.") for name in load_file(tmp_path / "new" / "model.safetensors"))


class TestMisfits:
    def test_each_is_named(self, vae_folder):
        def spoil(tensors):
            del tensors["encoder.conv_in.bias"]
            tensors["encoder.conv_in.scale"] = torch.ones(3)
            tensors["decoder.conv_in.weight"] = tensors["decoder.conv_in.weight"].transpose(0, 1).contiguous()

        edit(vae_folder, spoil)
        with pytest.raises(UsageError) as caught:
            read_vae(vae_folder)
        assert str(caught.value) == (
            f"{vae_folder}: the weights are not those of the model that config.json describes:\n"
            "  1 missing: encoder.conv_in.bias\n"
            "  1 surplus: encoder.conv_in.scale\n"
            "  1 misshapen: decoder.conv_in.weight (4, 8, 3, 3) instead of (8, 4, 3, 3)\n"
        )

    def test_the_buffer_of_a_text_encoder_is_surplus_elsewhere_by_another_name(self, vae_folder):
        edit(vae_folder, lambda tensors: tensors.update({"encoder.positions": torch.arange(3)}))
        with pytest.raises(UsageError, match=r"1 surplus: encoder\.positions"):
            read_vae(vae_folder)

    def test_a_type_that_is_no_float(self, vae_folder):
        edit(vae_folder, lambda tensors: tensors.update({"encoder.conv_in.bias": torch.zeros(4, dtype=torch.int8)}))
        with pytest.raises(UsageError, match="of type I8"):
            read_vae(vae_folder)

    def test_nothing_is_left_unread(self, sdxl):
        """Parameters start as shapes alone: one that was forgotten could not even be computed with."""
        values = [variable.get_value() for _, variable in nnx.to_flat_state(nnx.state(read_unet(sdxl / "unet")))]
        assert all(hasattr(value, "addressable_shards") for value in values)

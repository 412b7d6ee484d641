import json

import pytest

from sdjob.core.errors import SdjobError
from sdjob.diffusion.family import BaseModel, family_of
from sdjob.diffusion.kohya import diffusers_metadata, kohya_metadata, kohya_tensors
from sdjob.diffusion.tensor_file import StoredTensor
from sdjob.spec.train import LoraSpec

MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
SCALE = LoraSpec(rank=4, alpha=8.0)


def zeros(*shape: int) -> StoredTensor:
    count = 4
    for length in shape:
        count *= length
    return StoredTensor(dtype="F32", shape=shape, size_bytes=count, content=bytes(count))


def pair(module: str = MODULE, *, kernel: tuple[int, ...] = ()) -> dict[str, StoredTensor]:
    return {f"unet.{module}.lora_A.weight": zeros(4, 16, *kernel), f"unet.{module}.lora_B.weight": zeros(16, 4, *kernel)}


def test_kohya_names_underscore_the_module_and_end_in_down_up_and_alpha():
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    renamed = kohya_tensors(pair(), lora=SCALE)
    assert set(renamed) == {f"{name}.alpha", f"{name}.lora_down.weight", f"{name}.lora_up.weight"}
    assert renamed[f"{name}.lora_down.weight"].shape == (4, 16)
    assert renamed[f"{name}.lora_up.weight"].shape == (16, 4)
    assert renamed[f"{name}.alpha"].content == b"\x00\x00\x00\x41"  # 8.0 in float32
    assert renamed[f"{name}.alpha"].shape == ()


def test_diffusers_metadata_carries_alpha_beside_rank():
    metadata = diffusers_metadata(pair(), lora=SCALE)
    adapter = json.loads(metadata["lora_adapter_metadata"])
    assert adapter == {"unet.r": 4, "unet.lora_alpha": 8, "unet.target_modules": [MODULE]}
    assert metadata["format"] == "pt"


@pytest.mark.parametrize(
    ("base", "version", "v2", "architecture", "prediction"),
    [
        (BaseModel("sd1", v_prediction=False), "sd_v1", "False", "stable-diffusion-v1/lora", "epsilon"),
        (BaseModel("sd2", v_prediction=False), "sd_v2", "True", "stable-diffusion-v2-512/lora", "epsilon"),
        (BaseModel("sd2", v_prediction=True), "sd_v2_v", "True", "stable-diffusion-v2-768-v/lora", "v"),
        (BaseModel("sd2", v_prediction=True, zero_terminal_snr=True), "sd_v2_v", "True", "stable-diffusion-v2-768-v/lora", "v"),
        (BaseModel("sdxl", v_prediction=False), "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora", "epsilon"),
    ],
)
def test_kohya_metadata_names_the_base_models_kind(base, version, v2, architecture, prediction):
    metadata = kohya_metadata(pair(), lora=SCALE, base=base, resolution=(768, 512))
    assert metadata["ss_zero_terminal_snr"] == str(base.zero_terminal_snr)
    assert metadata["ss_base_model_version"] == version
    assert metadata["ss_v2"] == v2
    assert metadata["modelspec.architecture"] == architecture
    assert metadata["modelspec.prediction_type"] == prediction
    assert metadata["modelspec.resolution"] == "768x512"
    assert (metadata["ss_network_module"], metadata["ss_network_dim"], metadata["ss_network_alpha"]) == (
        "networks.lora",
        "4",
        "8",
    )


@pytest.mark.parametrize(("kernel", "arguments"), [((), {}), ((1, 1), {}), ((3, 3), {"conv_alpha": "8", "conv_dim": "4"})])
def test_only_true_convolutions_have_a_rank_of_their_own(kernel, arguments):
    base = BaseModel("sd1", v_prediction=False)
    metadata = kohya_metadata(pair(kernel=kernel), lora=SCALE, base=base, resolution=(64, 64))
    assert json.loads(metadata["ss_network_args"]) == arguments


def test_a_whole_alpha_has_one_spelling_and_a_fraction_keeps_its_digits():
    assert diffusers_metadata(pair(), lora=LoraSpec(rank=4, alpha=8)) == diffusers_metadata(
        pair(), lora=LoraSpec(rank=4, alpha=8.0)
    )
    assert '"unet.lora_alpha": 0.5' in diffusers_metadata(pair(), lora=LoraSpec(rank=4, alpha=0.5))["lora_adapter_metadata"]


@pytest.mark.parametrize("lost", ["lora_A", "lora_B"])
def test_half_a_pair_is_refused_by_name(lost):
    tensors = {name: tensor for name, tensor in pair().items() if lost not in name}
    with pytest.raises(SdjobError, match=r"to_out\.0"):
        kohya_tensors(tensors, lora=SCALE)


def test_a_name_of_nothing_that_is_trained_is_refused():
    with pytest.raises(SdjobError, match=r"vae\.encoder"):
        kohya_tensors({"vae.encoder.lora_A.weight": zeros(4, 16)}, lora=SCALE)


LAYER = "text_model.encoder.layers.1.self_attn.q_proj"


def text_pair(part: str) -> dict[str, StoredTensor]:
    return {f"{part}.{LAYER}.lora_A.weight": zeros(4, 16), f"{part}.{LAYER}.lora_B.weight": zeros(16, 4)}


@pytest.mark.parametrize(
    ("parts", "prefixes"),
    [(["text_encoder"], {"lora_te", "lora_unet"}), (["text_encoder", "text_encoder_2"], {"lora_te1", "lora_te2", "lora_unet"})],
)
def test_text_encoders_have_numbers_where_there_are_two(parts, prefixes):
    tensors = {**pair(), **{name: tensor for part in parts for name, tensor in text_pair(part).items()}}
    renamed = kohya_tensors(tensors, lora=SCALE)
    modules = {name.partition(".")[0] for name in renamed}
    texts = {f"{prefix}_text_model_encoder_layers_1_self_attn_q_proj" for prefix in prefixes - {"lora_unet"}}
    assert modules == {*texts, "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"}


def test_a_text_encoders_layers_are_found_with_and_without_its_inner_model():
    adapter = json.loads(diffusers_metadata({**pair(), **text_pair("text_encoder")}, lora=SCALE)["lora_adapter_metadata"])
    assert adapter["text_encoder.target_modules"] == ["encoder.layers.1.self_attn.q_proj"]
    assert (adapter["text_encoder.r"], adapter["text_encoder.lora_alpha"]) == (4, 8)


def test_families_are_told_by_the_unets_configuration():
    assert family_of({"cross_attention_dim": 768}) == "sd1"
    assert family_of({"cross_attention_dim": 1024, "use_linear_projection": True}) == "sd2"
    assert family_of({"use_linear_projection": True, "addition_embed_type": "text_time"}) == "sdxl"

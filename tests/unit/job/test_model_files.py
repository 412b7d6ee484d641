"""Which files of a model repository are brought: by their names alone, as the Hub lists them."""

from typing import Any

import pytest

from sdjob.core.errors import MissingError
from sdjob.job.model_files import fetched_files, training_files

WHERE = "hf://models/owner/base@main"
# The layout of a Stable Diffusion 1.5 repository on the Hub, with all that people keep in one.
CONFIGS = {
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "scheduler/scheduler_config.json",
}
WEIGHTS = {
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
}
HALF = {name.replace(".safetensors", ".fp16.safetensors") for name in WEIGHTS}
CHECKER = {"safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json"}
BESIDE = {
    "README.md",
    "LICENSE.md",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_flax_model.msgpack",
    "safety_checker/model.fp16.safetensors",
    "safety_checker/pytorch_model.bin",
    "v1-5-pruned-emaonly.safetensors",
    "v1-5-pruned.ckpt",
    ".gitattributes",
}
REPOSITORY = CONFIGS | WEIGHTS | HALF | CHECKER | BESIDE


def fetched(names: Any = REPOSITORY, *, variant: str | None = None, method: Any = "lora"):
    return set(fetched_files(names, variant=variant, method=method, where=WHERE))


def test_a_lora_needs_the_parts_that_it_trains_on_and_the_card():
    assert fetched() == CONFIGS | WEIGHTS | {"README.md", "LICENSE.md"}


def test_a_full_model_is_published_whole_so_its_other_parts_come_too():
    assert fetched(method="full") == fetched() | CHECKER


def test_a_variant_and_the_plain_weights_of_parts_without_it():
    expected = CONFIGS | HALF | CHECKER | {"README.md", "LICENSE.md", "safety_checker/model.fp16.safetensors"}
    assert fetched(variant="fp16", method="full") == expected - {"safety_checker/model.safetensors"}


def test_shards_and_their_index():
    shards = {f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    names = REPOSITORY - WEIGHTS | WEIGHTS - {"unet/diffusion_pytorch_model.safetensors"} | shards
    names |= {"unet/diffusion_pytorch_model.safetensors.index.json"}
    assert shards | {"unet/diffusion_pytorch_model.safetensors.index.json"} <= fetched(names)


@pytest.mark.parametrize(
    ("unet", "variant", "told"),
    [
        ("diffusion_pytorch_model.bin", None, r"holds diffusion_pytorch_model\.bin\)\. .*a pickle may run code"),
        ("diffusion_flax_model.msgpack", None, r"these are Flax weights: load them with diffusers before 0\.40"),
        ("diffusion_pytorch_model.fp16.safetensors", None, "Set model.variant to what the names there have"),
        ("diffusion_pytorch_model.safetensors", "bf16", r"end in \.bf16\.safetensors"),
    ],
)
def test_what_a_repository_without_the_wanted_safetensors_has(unet, variant, told):
    names = {name for name in CONFIGS | WEIGHTS if not (name.startswith("unet/") and "model" in name)} | {f"unet/{unet}"}
    with pytest.raises(MissingError, match=told) as caught:
        fetched(names, variant=variant)
    assert f"{WHERE}/unet" in str(caught.value)


def test_a_repository_of_one_file():
    with pytest.raises(MissingError, match=r"no model folder in diffusers. layout \(it holds v1-5-pruned-emaonly\.safetensors"):
        fetched({"README.md", "v1-5-pruned.ckpt", "v1-5-pruned-emaonly.safetensors"})


SECOND = {"text_encoder_2/config.json", "text_encoder_2/model.safetensors", "tokenizer_2/vocab.json"}


def test_sdxl_is_told_by_its_second_text_encoder():
    chosen = fetched(REPOSITORY | SECOND | {"text_encoder_2/model.fp16.safetensors", "text_encoder_2/flax_model.msgpack"})
    assert chosen >= SECOND
    assert not chosen & {"text_encoder_2/model.fp16.safetensors", "text_encoder_2/flax_model.msgpack"}
    # Its index says how an empty caption is encoded: one of the files that decide the weights.
    assert "model_index.json" in training_files(chosen, variant=None, where=WHERE)
    assert "model_index.json" not in training_files(fetched(), variant=None, where=WHERE)


@pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer_2"])
def test_sdxl_is_whole_with_both_of_its_second_parts(part):
    lost = {name for name in SECOND if name.startswith(f"{part}/") and name != "text_encoder_2/config.json"}
    with pytest.raises(MissingError, match=part):
        fetched(REPOSITORY | SECOND - lost)


def test_the_same_answer_for_what_was_fetched():
    chosen = fetched()
    assert training_files(chosen, variant=None, where=WHERE) == training_files(REPOSITORY, variant=None, where=WHERE)

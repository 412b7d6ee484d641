import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fakes.checkpoints import make_job, small_lora, write_checkpoint
from sdjob.core.errors import MissingError, UsageError
from sdjob.job.weights import build_published

UNET = {"unet.conv_in.weight": np.full((2, 3), 1.5, np.float32), "unet.conv_in.bias": np.zeros(2, np.float32)}


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_base(folder: Path, *, weights: str = "model.safetensors") -> Path:
    """A pipeline folder with the names of a real one and next to nothing in its files."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_name_or_path": "/home/somebody/base",
        "requires_safety_checker": True,
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "image_encoder": [None, None],
    }
    write_json(folder / "model_index.json", index)
    write_json(folder / "scheduler" / "scheduler_config.json", {"prediction_type": "epsilon"})
    write_json(folder / "unet" / "config.json", {"cross_attention_dim": 768, "_name_or_path": "/home/somebody/base/unet"})
    write_json(folder / "tokenizer" / "tokenizer_config.json", {"name_or_path": "/home/somebody", "model_max_length": 77})
    write_json(folder / "tokenizer" / "vocab.json", {"a": 0})
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    for part in ("text_encoder", "safety_checker"):
        write_json(folder / part / "config.json", {"hidden_size": 4})
        save_file({part: np.ones(2, np.float16)}, folder / part / weights)
    for junk in ("text_encoder/pytorch_model.bin", "text_encoder/flax_model.msgpack", "v1-5-pruned.ckpt", "v1-5.safetensors"):
        (folder / junk).write_bytes(b"junk")
    save_file({"old": np.zeros(1, np.float32)}, folder / "unet" / "diffusion_pytorch_model.safetensors")
    return folder


def build(tmp_path: Path, *, job, base: Path | None = None, out: str = "out", **options) -> list[str]:
    return build_published(
        tmp_path / "checkpoint", job=job, model_dir=base or write_base(tmp_path / "base"), out=tmp_path / out, **options
    )


def test_a_lora_is_published_in_both_forms_with_its_own_values(tmp_path):
    lora = small_lora()
    write_checkpoint(tmp_path / "checkpoint", weights=lora)
    assert build(tmp_path, job=make_job()) == ["pytorch_lora_weights.safetensors", "tiny.kohya.safetensors"]
    published = load_file(tmp_path / "out" / "pytorch_lora_weights.safetensors")
    assert published.keys() == lora.keys()
    assert all(np.array_equal(published[name], lora[name]) for name in lora)
    assert len(load_file(tmp_path / "out" / "tiny.kohya.safetensors")) == 6


@pytest.mark.parametrize(
    ("form", "files"), [("diffusers", ["pytorch_lora_weights.safetensors"]), ("kohya", ["tiny.kohya.safetensors"])]
)
def test_one_form_alone(tmp_path, form, files):
    write_checkpoint(tmp_path / "checkpoint", weights=small_lora())
    assert build(tmp_path, job=make_job(), format=form) == files
    assert [path.name for path in (tmp_path / "out").iterdir()] == files


def test_moving_averages_are_published_where_there_are_any(tmp_path):
    raw, averages = small_lora(seed=0), small_lora(seed=1)
    write_checkpoint(tmp_path / "checkpoint", weights=raw, ema=averages)
    base = write_base(tmp_path / "base")
    for weights, expected in (("ema", averages), ("raw", raw)):
        build(tmp_path, job=make_job(), base=base, out=weights, weights=weights)
        published = load_file(tmp_path / weights / "pytorch_lora_weights.safetensors")
        assert all(np.array_equal(published[name], expected[name]) for name in expected)


def test_equal_weights_are_equal_files_whoever_wrote_the_checkpoint(tmp_path):
    base = write_base(tmp_path / "base")
    for turn in ("a", "b"):
        lora = small_lora() if turn == "a" else dict(reversed(small_lora().items()))
        write_checkpoint(tmp_path / turn / "checkpoint", weights=lora)
        build_published(tmp_path / turn / "checkpoint", job=make_job(), model_dir=base, out=tmp_path / turn / "out")
    for name in ("pytorch_lora_weights.safetensors", "tiny.kohya.safetensors"):
        assert (tmp_path / "a" / "out" / name).read_bytes() == (tmp_path / "b" / "out" / name).read_bytes()


def test_a_pipeline_takes_what_it_needs_of_the_base_and_nothing_else(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    files = build(tmp_path, job=make_job("full"))
    assert files == [
        "model_index.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()) == files


def test_the_trained_unet_takes_the_place_of_the_bases(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    build(tmp_path, job=make_job("full"))
    path = tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors"
    assert sorted(load_file(path)) == ["conv_in.bias", "conv_in.weight"]
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_no_folder_of_the_bases_maker_is_told_on(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    build(tmp_path, job=make_job("full"))
    texts = [path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*.json")]
    assert not any("somebody" in text for text in texts)


@pytest.mark.parametrize("stored", [{"dtype": "float16"}, {"torch_dtype": "float16"}, {}])
def test_parts_in_half_precision_are_loaded_beside_a_unet_in_single(tmp_path, stored):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    base = write_base(tmp_path / "base")
    write_json(base / "text_encoder" / "config.json", {"model_type": "clip_text_model", **stored})
    build(tmp_path, job=make_job("full"), base=base)
    config = json.loads((tmp_path / "out" / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    assert config == {"model_type": "clip_text_model", "torch_dtype": "float32"}


def test_a_variant_is_published_under_plain_names(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    base = write_base(tmp_path / "base", weights="model.fp16.safetensors")
    # One part of the base without the variant: its plain file serves, as in diffusers.
    (base / "safety_checker" / "model.fp16.safetensors").rename(base / "safety_checker" / "model.safetensors")
    save_file({"other": np.zeros(1, np.float32)}, base / "text_encoder" / "model.safetensors")
    files = build(tmp_path, job=make_job("full", model={"variant": "fp16"}), base=base)
    assert {"text_encoder/model.safetensors", "safety_checker/model.safetensors"} <= set(files)
    assert not any("fp16" in name for name in files)
    assert list(load_file(tmp_path / "out" / "text_encoder" / "model.safetensors")) == ["text_encoder"]


def test_shards_of_a_variant_keep_their_index(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    base = write_base(tmp_path / "base")
    part = base / "text_encoder"
    save_file({"one": np.zeros(1, np.float16)}, part / "model.fp16-00001-of-00001.safetensors")
    write_json(part / "model.safetensors.index.fp16.json", {"weight_map": {"one": "model.fp16-00001-of-00001.safetensors"}})
    build(tmp_path, job=make_job("full", model={"variant": "fp16"}), base=base)
    published = tmp_path / "out" / "text_encoder"
    assert sorted(path.name for path in published.iterdir()) == [
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads((published / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["weight_map"] == {"one": "model-00001-of-00001.safetensors"}


def test_a_part_with_pickles_alone_is_missing_its_safetensors(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    base = write_base(tmp_path / "base")
    (base / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(MissingError, match="text_encoder holds no safetensors"):
        build(tmp_path, job=make_job("full"), base=base)


def test_a_part_that_the_pipeline_can_do_without_may_be_absent(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    base = write_base(tmp_path / "base")
    for path in (base / "safety_checker").iterdir():
        path.unlink()
    (base / "safety_checker").rmdir()
    build(tmp_path, job=make_job("full"), base=base)
    index = json.loads((tmp_path / "out" / "model_index.json").read_text(encoding="utf-8"))
    assert index["safety_checker"] == [None, None]
    assert index["requires_safety_checker"] is False


def test_a_part_that_the_pipeline_needs_may_not(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    base = write_base(tmp_path / "base")
    (base / "scheduler").rename(base / "lost")
    with pytest.raises(MissingError, match="scheduler"):
        build(tmp_path, job=make_job("full"), base=base)


def test_the_licence_comes_along(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    base = write_base(tmp_path / "base")
    (base / "LICENSE").write_text("CreativeML Open RAIL-M", encoding="utf-8")
    assert "LICENSE" in build(tmp_path, job=make_job("full"), base=base)


def test_a_whole_unet_has_no_kohya_form(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", weights=UNET)
    with pytest.raises(UsageError, match="kohya"):
        build(tmp_path, job=make_job("full"), format="kohya")

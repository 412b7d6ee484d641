"""What may be trained on, and the words for what may not."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fakes.checkpoints import make_job
from fakes.clock import FakeClock
from fakes.folders import EMPTY_WEIGHTS
from fakes.tiny_models import write_tiny_model
from sdjob.core.errors import MissingError, StoppedError, UsageError
from sdjob.core.log import Log
from sdjob.job.fetch import Here, file_sha256
from sdjob.job.stage import stage_init_from, stage_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture
def model(whole, tmp_path):
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "model")


def here(scratch="/nowhere", *, check_stop=lambda: None):
    log = Log(mode="text", stream=io.StringIO(), secrets=())
    return Here(Path(scratch), check_stop=check_stop, clock=FakeClock(), log=log)


def staged(model, **fields):
    return stage_model(make_job(model={"source": str(model), **fields}), here=here())


def set_config(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


class TestModel:
    def test_every_file_that_training_reads_is_hashed(self, model):
        found = staged(model)
        assert found.folder == model
        assert found.hashes["unet/diffusion_pytorch_model.safetensors"] == file_sha256(
            model / "unet/diffusion_pytorch_model.safetensors"
        )
        assert {path.split("/")[0] for path in found.hashes} == {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}
        for part in ("unet/config.json", "vae/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
            assert part in found.hashes

    @pytest.mark.parametrize(
        "file", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json", "text_encoder/model.safetensors"]
    )
    def test_a_change_in_any_of_them_is_another_model(self, model, file):
        before = staged(model).hashes
        path = model / file
        data = path.read_bytes()
        path.write_bytes(data + b" " if file.endswith(".json") else data[:-1] + bytes([data[-1] ^ 1]))
        assert {name for name, value in staged(model).hashes.items() if value != before[name]} == {file}

    def test_files_beside_do_not_matter(self, model):
        before = staged(model).hashes
        (model / "README.md").write_text("a card")
        (model / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
        (model / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"another variant")
        assert staged(model).hashes == before

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
    def test_a_missing_part_is_named(self, model, part):
        shutil.rmtree(model / part)
        with pytest.raises(MissingError, match=f"has no {part}/ with its configuration") as caught:
            staged(model)
        assert caught.value.where == "model.source"

    def test_a_folder_of_something_else(self, tmp_path):
        with pytest.raises(MissingError, match="no model folder in diffusers' layout"):
            staged(tmp_path)

    def test_no_folder_at_all(self, tmp_path):
        with pytest.raises(MissingError, match="does not exist"):
            staged(tmp_path / "nowhere")

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
    def test_pickles_are_refused(self, model, part):
        (weights,) = (model / part).glob("*.safetensors")
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(MissingError, match=rf"\.safetensors \(it holds {weights.stem}\.bin\).*Only safetensors are read"):
            staged(model)

    def test_a_variant_is_taken_where_it_is_named(self, model):
        for part in ("unet", "vae", "text_encoder"):
            (weights,) = (model / part).glob("*.safetensors")
            weights.rename(weights.with_name(f"{weights.stem}.fp16.safetensors"))
        assert "unet/diffusion_pytorch_model.fp16.safetensors" in staged(model, variant="fp16").hashes
        with pytest.raises(MissingError, match=r"it holds diffusion_pytorch_model\.fp16\.safetensors.*Set model\.variant"):
            staged(model)

    def test_sdxl(self, model):
        shutil.copytree(model / "text_encoder", model / "text_encoder_2")
        with pytest.raises(MissingError, match="has no tokenizer_2/"):
            staged(model)
        shutil.copytree(model / "tokenizer", model / "tokenizer_2")
        assert {path.split("/")[0] for path in staged(model).hashes} >= {"text_encoder_2", "tokenizer_2", "model_index.json"}

    @pytest.mark.parametrize("channels", [9, 5])
    def test_inpainting_and_depth(self, model, channels):
        set_config(model / "unet/config.json", in_channels=channels)
        with pytest.raises(UsageError, match=f"takes {channels} channels where the VAE makes 4: an inpainting or depth model"):
            staged(model)

    def test_a_stop_is_heard_between_files(self, model):
        def stop():
            raise StoppedError("asked")

        with pytest.raises(StoppedError):
            stage_model(make_job(model={"source": str(model)}), here=here(check_stop=stop))


class TestInitFrom:
    def staged(self, path, method="lora"):
        return stage_init_from(make_job(method, train={"init_from": str(path)}), here=here())

    def lora(self, path, value=0.0):
        save_file({"a": np.full(2, value, np.float32)}, path)
        return path

    def test_none(self):
        assert stage_init_from(make_job(), here=here()) == (None, {})

    def test_a_file(self, tmp_path):
        file = self.lora(tmp_path / "any.safetensors")
        assert self.staged(file) == (file, {"init_from": file_sha256(file)})

    def test_a_published_folder_means_diffusers_file(self, tmp_path):
        self.lora(tmp_path / "a.kohya.safetensors", 1.0)
        file = self.lora(tmp_path / "pytorch_lora_weights.safetensors")
        assert self.staged(tmp_path) == (file, {"init_from": file_sha256(file)})

    def test_a_folder_with_one_file(self, tmp_path):
        file = self.lora(tmp_path / "mine.safetensors")
        assert self.staged(tmp_path)[0] == file

    def test_a_file_that_moved_is_the_same_start(self, tmp_path):
        one, other = self.lora(tmp_path / "one.safetensors"), self.lora(tmp_path / "other.safetensors")
        assert self.staged(one)[1] == self.staged(other)[1]

    def test_several_files_are_a_question(self, tmp_path):
        self.lora(tmp_path / "a.safetensors")
        self.lora(tmp_path / "b.safetensors")
        with pytest.raises(UsageError, match=r"several LoRA files \(a\.safetensors, b\.safetensors\)\. Name one of them"):
            self.staged(tmp_path)

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(MissingError, match="holds no safetensors file"):
            self.staged(tmp_path)

    def test_a_unet_from_a_pipeline_or_alone_is_the_same_start(self, model):
        of_pipeline, of_unet = self.staged(model, "full"), self.staged(model / "unet", "full")
        assert of_pipeline == of_unet
        assert of_unet[0] == model / "unet"

    def test_another_unet_is_another_start(self, model):
        before = self.staged(model, "full")[1]
        (model / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"not read")
        assert self.staged(model, "full")[1] == before
        (model / "unet/diffusion_pytorch_model.safetensors").write_bytes(EMPTY_WEIGHTS)
        assert self.staged(model, "full")[1] != before

    def test_a_lora_is_no_start_for_a_full_run(self, tmp_path):
        file = self.lora(tmp_path / "pytorch_lora_weights.safetensors")
        for path in (file, tmp_path):
            with pytest.raises(MissingError, match="neither a pipeline's folder nor a UNet's"):
                self.staged(path, "full")

    def test_a_unet_of_pickles(self, model):
        (weights,) = (model / "unet").glob("*.safetensors")
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(MissingError, match=r"it holds diffusion_pytorch_model\.bin") as caught:
            self.staged(model, "full")
        assert caught.value.where == "train.init_from"

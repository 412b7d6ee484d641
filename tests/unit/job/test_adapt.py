"""The base model with another VAE, or with a noise schedule of zero terminal SNR: what trains and what is published has them."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.numpy import load_file

from fakes.checkpoints import make_job, write_checkpoint
from fakes.clock import FakeClock
from fakes.tiny_models import make_vae, write_tiny_model
from sdjob.core.errors import DataError, MissingError, UsageError
from sdjob.core.log import Log
from sdjob.diffusion.family import read_base_model
from sdjob.diffusion.names import UNET
from sdjob.diffusion.schedule import read_schedule
from sdjob.job.fetch import Here, file_sha256
from sdjob.job.stage import base_model, model_configs, stage_model
from sdjob.job.weights import build_published

WEIGHTS, SCHEDULER = "vae/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in ("sd1", "sd2"):
        write_tiny_model(folder / family, family=family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        make_vae().save_pretrained(folder / "vae")
    return folder


@pytest.fixture
def here(tmp_path):
    log = Log(mode="text", stream=io.StringIO(), secrets=())
    return Here(tmp_path / "scratch", check_stop=lambda: None, clock=FakeClock(), log=log)


def zero_terminal(model, method="full"):
    return make_job(method, model={"source": str(model)}, train={"loss": {"zero_terminal_snr": True}})


def with_vae(model, vae, method="full", **fields):
    return make_job(method, model={"source": str(model), "vae": str(vae), **fields})


def test_zero_terminal_snr_is_in_what_trains_and_in_what_is_published(models, here, tmp_path):
    job = zero_terminal(models / "sd2")
    plain, staged = stage_model(make_job(model={"source": str(models / "sd2")}), here=here), stage_model(job, here=here)
    assert read_schedule(plain.folder).alphas_cumprod[-1] == pytest.approx(0.00466, abs=1e-5)
    assert read_schedule(staged.folder).alphas_cumprod[-1] == 0.0
    assert {name for name in staged.hashes if staged.hashes[name] != plain.hashes[name]} == {SCHEDULER}
    assert staged.hashes[SCHEDULER] == file_sha256(staged.folder / SCHEDULER)

    unet = load_file(models / "sd2/unet/diffusion_pytorch_model.safetensors")
    write_checkpoint(tmp_path / "checkpoint", weights={UNET + name: values for name, values in unet.items()})
    build_published(tmp_path / "checkpoint", job=job, model_dir=staged.folder, out=tmp_path / "out")
    scheduler = StableDiffusionPipeline.from_pretrained(tmp_path / "out").scheduler
    assert scheduler.config["rescale_betas_zero_snr"]
    assert scheduler.config["timestep_spacing"] == "trailing"
    assert scheduler.alphas_cumprod[-1] == 0.0


def test_a_scheduler_that_cannot_becomes_ddim_in_the_index_too(models, here, tmp_path):
    model = shutil.copytree(models / "sd2", tmp_path / "model")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "PNDMScheduler"]}))
    config = json.loads((model / SCHEDULER).read_text())
    (model / SCHEDULER).write_text(json.dumps({**config, "_class_name": "PNDMScheduler", "skip_prk_steps": True}))
    folder = stage_model(zero_terminal(model), here=here).folder
    assert json.loads((folder / "model_index.json").read_text())["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert read_schedule(folder).alphas_cumprod[-1] == 0.0


def test_a_reader_of_the_run_sees_the_same_model(models, here):
    job = zero_terminal(models / "sd2")
    assert base_model(job, method="full", here=here) == stage_model(job, here=here).folder
    assert read_base_model(model_configs(job, here=here)).zero_terminal_snr
    assert not read_base_model(models / "sd2").zero_terminal_snr


def test_noise_predictions_are_refused(models, here):
    with pytest.raises(UsageError, match="the model predicts the noise") as caught:
        stage_model(zero_terminal(models / "sd1"), here=here)
    assert caught.value.where == "train.loss.zero_terminal_snr"


@pytest.mark.parametrize("form", ["alone", "pipeline"])
def test_another_vae_takes_the_place_of_the_models(models, here, tmp_path, form):
    vae = models / "vae"
    if form == "pipeline":
        vae = shutil.copytree(models / "sd1", tmp_path / "other")
        shutil.copytree(models / "vae", vae / "vae", dirs_exist_ok=True)
    plain = stage_model(make_job(model={"source": str(models / "sd1")}), here=here)
    staged = stage_model(with_vae(models / "sd1", vae), here=here)
    assert staged.hashes[WEIGHTS] == file_sha256(models / "vae/diffusion_pytorch_model.safetensors")
    changed = {name for name in staged.hashes if staged.hashes[name] != plain.hashes.get(name)}
    assert changed <= {WEIGHTS, "vae/config.json"}
    own, new = (AutoencoderKL.from_pretrained(folder, subfolder="vae") for folder in (plain.folder, staged.folder))
    given = make_vae_of(models / "vae")
    assert all(torch.equal(a, b) for a, b in zip(new.parameters(), given.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(new.parameters(), own.parameters(), strict=True))


def make_vae_of(folder):
    return AutoencoderKL.from_pretrained(folder)


def test_another_vae_is_published_with_a_whole_model(models, here, tmp_path):
    job = with_vae(models / "sd1", models / "vae")
    write_checkpoint(tmp_path / "checkpoint", weights={"unet.w": np.zeros(1, np.float32)})
    build_published(tmp_path / "checkpoint", job=job, model_dir=stage_model(job, here=here).folder, out=tmp_path / "out")
    assert not (tmp_path / "out" / WEIGHTS).is_symlink()
    assert file_sha256(tmp_path / "out" / WEIGHTS) == file_sha256(models / "vae/diffusion_pytorch_model.safetensors")


def test_beside_a_variant_the_vae_takes_its_name(models, here, tmp_path):
    """diffusers asks every part for the variant."""
    model = shutil.copytree(models / "sd1", tmp_path / "model")
    for path in [*model.glob("*/*.safetensors")]:
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))
    staged = stage_model(with_vae(model, models / "vae", variant="fp16"), here=here)
    assert [path.name for path in sorted((staged.folder / "vae").iterdir())] == [
        "config.json", "diffusion_pytorch_model.fp16.safetensors"
    ]  # fmt: skip
    AutoencoderKL.from_pretrained(staged.folder, subfolder="vae", variant="fp16")


def test_the_second_attempt_uses_the_same_folder(models, here):
    job = with_vae(models / "sd1", models / "vae")
    assert stage_model(job, here=here).folder == stage_model(job, here=here).folder
    assert stage_model(with_vae(models / "sd2", models / "vae"), here=here).folder != stage_model(job, here=here).folder


class TestWhatIsNoVae:
    def refused(self, models, here, vae: Path, error, match):
        with pytest.raises(error, match=match):
            stage_model(with_vae(models / "sd1", vae), here=here)

    def test_nothing_there(self, models, here, tmp_path):
        self.refused(models, here, tmp_path / "nowhere", MissingError, "is no folder")

    def test_no_configuration(self, models, here, tmp_path):
        self.refused(
            models, here, tmp_path, MissingError, r"neither a VAE's folder nor a pipeline's \(there is no config\.json\)"
        )

    def test_pickles(self, models, here, tmp_path):
        vae = shutil.copytree(models / "vae", tmp_path / "vae")
        (vae / "diffusion_pytorch_model.safetensors").rename(vae / "diffusion_pytorch_model.bin")
        self.refused(models, here, vae, MissingError, "Only safetensors are read")

    def test_torn(self, models, here, tmp_path):
        vae = shutil.copytree(models / "vae", tmp_path / "vae")
        file = vae / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        self.refused(models, here, vae, DataError, "1 bytes shorter than its header says")

    def test_of_other_channels(self, models, here, tmp_path):
        vae = shutil.copytree(models / "vae", tmp_path / "vae")
        config = json.loads((vae / "config.json").read_text())
        (vae / "config.json").write_text(json.dumps({**config, "latent_channels": 16}))
        self.refused(models, here, vae, UsageError, "takes 4 channels where the VAE makes 16")

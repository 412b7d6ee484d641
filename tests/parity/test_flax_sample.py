"""`sdjob sample` without torch draws what it draws with torch: base model, LoRA on top, the model's own size, its scheduler."""

from dataclasses import replace

import numpy as np
import pytest
from diffusers import PNDMScheduler
from PIL import Image

from fakes import flax_parity  # noqa: F401 - compiles as quickly as the other tests
from fakes.checkpoints import lora_arrays, make_job, write_checkpoint
from fakes.tiny_models import write_tiny_model
from sdjob.core.errors import UsageError
from sdjob.job.weights import build_published
from sdjob.spec.task import SampleTask
from sdjob.train_flax import sample as in_flax
from sdjob.train_torch import sample as in_torch

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


class Told(list):
    """A channel whose messages are kept."""

    def send(self, message):
        self.append(message)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """With the scheduler that Stable Diffusion 1.x has."""
    folder = tmp_path_factory.mktemp("models") / "sd1"
    write_tiny_model(folder, family="sd1")
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    index = (folder / "model_index.json").read_text()
    (folder / "model_index.json").write_text(index.replace("DDIMScheduler", "PNDMScheduler"))
    return folder


@pytest.fixture(scope="module")
def lora(model, tmp_path_factory):
    """As it is published; alpha is not the rank."""
    folder = tmp_path_factory.mktemp("lora")
    weights = lora_arrays({f"{ATTENTION}.to_v": (16, 16), "conv_in": (16, 4)}, rank=3)
    weights["unet.conv_in.lora_A.weight"] = np.full((3, 4, 3, 3), 0.05, np.float32)
    weights["unet.conv_in.lora_B.weight"] = weights["unet.conv_in.lora_B.weight"].reshape(16, 3, 1, 1)
    job = make_job("lora", train={"lora": {"rank": 3, "alpha": 6.0}})
    build_published(write_checkpoint(folder / "checkpoint", weights=weights), job=job, model_dir=model, out=folder / "out")
    return folder / "out"


@pytest.fixture
def task(model, tmp_path):
    return SampleTask(
        model=model, lora=None, prompts=("a red circle", "a blue square"), images=2, inference_steps=4, guidance_scale=3.0,
        width=None, height=None, seed=7, out=tmp_path, device="cpu", threads=1,
    )  # fmt: skip


def drawn(by, task):
    task = replace(task, out=task.out / by.__name__)
    task.out.mkdir()
    told = Told()
    by.run_sample_task(task, channel=told)
    assert [message["event"] for message in told] == ["picture"] * len(task.prompts) + ["finished"]
    return {path.name: np.asarray(Image.open(path), dtype=np.int16) for path in sorted(task.out.iterdir())}


def test_pictures_agree(task, lora):
    base = {}
    for adapter in (None, lora):
        wanted, found = (drawn(by, replace(task, lora=adapter, out=new_folder(task, adapter))) for by in (in_torch, in_flax))
        assert list(found) == list(wanted) == ["00-00.png", "00-01.png", "01-00.png", "01-01.png"]
        for name, pixels in wanted.items():
            assert pixels.shape == found[name].shape == (64, 64, 3)
            assert abs(found[name] - pixels).max() <= 1
            if adapter is not None:
                assert abs(base[name] - pixels).max() > 10, "the LoRA changes what is drawn"
        base = wanted


def new_folder(task, adapter):
    folder = task.out / ("lora" if adapter else "base")
    folder.mkdir(exist_ok=True)
    return folder


def test_a_size_that_latents_cannot_have(task):
    with pytest.raises(UsageError, match="multiple of 8, not 60"):
        in_flax.run_sample_task(replace(task, height=60), channel=Told())


def test_a_lora_of_another_model(task, lora, tmp_path):
    arrays = lora_arrays({f"{ATTENTION}.to_q": (8, 8)}, rank=3)
    job = make_job("lora", train={"lora": {"rank": 3, "alpha": 6.0}})
    build_published(write_checkpoint(tmp_path / "checkpoint", weights=arrays), job=job, model_dir=None, out=tmp_path / "other")
    with pytest.raises(UsageError, match="another model's"):
        in_flax.run_sample_task(replace(task, lora=tmp_path / "other"), channel=Told())

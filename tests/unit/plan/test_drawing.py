"""Decoding a validation's picture may take more than a step."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch._subclasses.fake_tensor import FakeTensorMode

from fakes.torch_runs import make_task
from sdjob.plan import families
from sdjob.train_torch.forecast import default_dtype, rounded_as_on_cuda
from sdjob.train_torch.meter import Meter
from unit.plan.jobs import SDXL, make_job, memory, model_of

GIB = 2**30
SMALL_STEP = {"method": "lora", "gradient_checkpointing": True}
PICTURES = {"prompts": ["a"], "images": 4}


def traced_bytes(*, images: int, dtype: torch.dtype) -> int:
    """Of decoding pictures of 256 px by Stable Diffusion's VAE, as on an NVIDIA GPU."""
    task = make_task("/nowhere", train={"precision": "bf16"}, run={"accelerator": "nvidia-l4"})
    meter = Meter()
    with FakeTensorMode(allow_non_fake_inputs=True), rounded_as_on_cuda(task), meter, torch.no_grad(), default_dtype(dtype):
        vae = AutoencoderKL.from_config(families.VAE)
        meter.name("weights", vae.parameters())
        meter.start_again()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
            vae.decode(torch.zeros(images, 4, 32, 32), return_dict=False)
    return meter.parts_at_peak["activations"]


def test_one_picture_is_decoded_at_a_time():
    planned = memory("nvidia-l4", px=512, train=SMALL_STEP, validation=PICTURES)
    model = model_of(make_job())
    brought = 2 * (model.vae_params + model.text_params)
    # Four pictures of 256 px have the positions of one of 512.
    assert planned.parts["drawing"] - brought == pytest.approx(traced_bytes(images=4, dtype=torch.bfloat16), rel=0.02)
    assert "gradients" not in planned.parts


def test_sdxls_vae_is_wide():
    planned = memory("nvidia-l4", source=SDXL, px=1024, train=SMALL_STEP, validation=PICTURES)
    model = model_of(make_job(source=SDXL))
    brought = 2 * (model.vae_params + model.text_params)
    assert planned.parts["drawing"] - brought == pytest.approx(4 * traced_bytes(images=4, dtype=torch.float32), rel=0.02)


def test_a_step_that_takes_more_hides_it():
    assert memory(validation=PICTURES, train={"device_batch": 8}) == memory(train={"device_batch": 8})

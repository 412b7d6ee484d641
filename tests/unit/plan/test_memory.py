"""Memory by part: the published facts, each with its sum, and what libtpu's compiler says of the real programs."""

import pytest

from sdjob.plan.families import SD1
from unit.plan.jobs import SDXL, make_job, memory, model_of

GIB = 2**30
UNET_SD1, UNET_SDXL = 859_520_964, 2_567_463_684
FULL = {"method": "full", "precision": "bf16", "gradient_checkpointing": True}
SPREAD = "tpu-v5e:2x4@8t"
# GiB: runner/README.md, "What flax costs", from `benchmarks/tpu_compile.py`.
LIBTPU = [
    (SPREAD, "full", 1, True, 2.12),
    (SPREAD, "full", 8, True, 4.35),
    (SPREAD, "full", 16, True, 7.12),
    (SPREAD, "lora", 8, False, 7.02),
    (SPREAD, "lora", 32, True, 8.30),
    ("tpu-v5e:1x1", "full", 1, False, 11.61),
]


def test_a_full_fine_tune_of_sd15_fits_24_gb_and_not_12():
    """float32 weights, gradients and two moments: 16 bytes for each of 860 million numbers are 12.8 GiB; at batch 1 with
    checkpointing little comes on top. https://github.com/huggingface/diffusers/tree/main/examples/text_to_image: "24GB"."""
    found = memory("nvidia-rtx-3090", train=FULL)
    state = sum(found.parts[part] for part in ("weights", "gradients", "moments"))
    assert state == pytest.approx(16 * UNET_SD1, rel=0.01)
    assert found.needed == pytest.approx(state + found.parts["activations"] + found.parts["workspace"])
    assert found.fits
    assert found.needed > 12 * GIB
    assert memory("nvidia-rtx-3060", train=FULL).fits is False


def test_ema_is_another_four_bytes_a_number():
    without, averaged = memory(train=FULL), memory(train=FULL | {"ema": {}})
    assert averaged.needed - without.needed == pytest.approx(4 * UNET_SD1, rel=1e-6)
    assert averaged.fits
    assert memory(train=FULL | {"ema": {"offload": True}}).needed == without.needed


def test_a_lora_fits_a_t4():
    """The frozen UNet in 2 bytes a number is 1.6 GiB, and rank 4 is 0.8 million numbers: what is kept for the backward pass
    is the rest. https://huggingface.co/blog/lora: "11 GB" with the encoders on the card and attention whose scores are kept."""
    found = memory("nvidia-t4", train={"method": "lora"})
    assert found.parts["weights"] == pytest.approx(2 * UNET_SD1 + 4 * 797_184, rel=0.001)
    assert "ema" not in found.parts
    assert found.fits
    assert found.needed < 11 * GIB


def test_a_lora_of_sdxl_at_1024_fits_24_gb_with_checkpointing():
    """2.57 billion numbers in 2 bytes are 4.8 GiB; the published scripts' flags for 24 GB are these:
    https://github.com/huggingface/diffusers/blob/main/examples/text_to_image/README_sdxl.md."""
    lora = {"method": "lora", "gradient_checkpointing": True}
    found = memory("nvidia-rtx-3090", source=SDXL, px=1024, train=lora)
    assert found.parts["weights"] == pytest.approx(2 * UNET_SDXL, rel=0.01)
    assert found.fits
    kept = memory("nvidia-rtx-3090", source=SDXL, px=1024, train=lora | {"gradient_checkpointing": False})
    assert kept.parts["activations"] > 5 * found.parts["activations"]


def test_a_full_fine_tune_of_sdxl_fits_no_24_gb():
    found = memory("nvidia-rtx-3090", source=SDXL, px=1024, train=FULL)
    assert found.needed > 16 * UNET_SDXL
    assert found.fits is False


@pytest.mark.parametrize(("accelerator", "method", "batch", "checkpointing", "told_gib"), LIBTPU)
def test_what_libtpu_says(accelerator, method, batch, checkpointing, told_gib):
    train = {"backend": "flax", "method": method, "device_batch": batch, "gradient_checkpointing": checkpointing}
    found = memory(accelerator, train=train)
    assert found.needed / GIB == pytest.approx(told_gib, rel=0.1)
    assert found.capacity == pytest.approx(15.75 * GIB, rel=1e-6)


def test_encoders_in_the_loop_lie_on_the_device():
    cached, looped = memory(), memory(train={"cache": "never"})
    model = model_of(make_job())
    assert "encoders" not in cached.parts
    assert looped.parts["encoders"] == 2 * (model.vae_params + model.text_params) == 2 * (83_653_863 + 123_060_480)
    assert memory(data={"crop": "random"}).parts["encoders"] == looped.parts["encoders"]


def test_text_encoders_that_learn():
    """CLIP-L's 123 million numbers in full: weights, gradients and two moments in 4 bytes. As LoRA of rank 4 on four projections
    of 12 layers: 4 x (768 + 768) x 48 numbers, and the encoder itself stays, frozen."""
    train = {"method": "full", "precision": "bf16", "gradient_checkpointing": True}
    frozen, full = memory(train=train), memory(train=train | {"text_encoder": "full"})
    more = {part: full.parts[part] - frozen.parts[part] for part in ("weights", "gradients", "moments")}
    assert more == pytest.approx({"weights": 4 * 123_060_480, "gradients": 4 * 123_060_480, "moments": 8 * 123_060_480})
    assert "encoders" not in full.parts
    plain, adapted = memory(), memory(train={"text_encoder": "lora"})
    assert adapted.parts["encoders"] == 2 * 123_060_480
    assert adapted.parts["weights"] - plain.parts["weights"] == 4 * 4 * 1536 * 48
    assert adapted.parts["activations"] > plain.parts["activations"]


def test_encoding_may_be_the_peak():
    """The VAE's widest map is 256 channels at half of 512 px and 128 at all of it: 33.5 million numbers a picture, three in 2
    bytes and two in 4, as autocast widens norms."""
    train = {"gradient_checkpointing": True, "device_batch": 4}
    cached, looped = memory(train=train), memory(train=train | {"cache": "never"})
    assert looped.parts["activations"] == 4 * 128 * 512**2 * (3 * 2 + 2 * 4) > cached.parts["activations"]


def test_more_pictures_and_larger_ones_need_more():
    one, four, larger = memory(), memory(train={"device_batch": 4}), memory(px=768)
    assert four.parts["activations"] == pytest.approx(4 * one.parts["activations"], rel=0.02)
    assert larger.parts["activations"] == pytest.approx(1.5**2 * one.parts["activations"], rel=0.05)


def test_hardware_without_a_name():
    for accelerator in (None, "nvidia", "cpu:2"):
        found = memory(accelerator)
        assert (found.capacity, found.fits) == (None, None)
        assert found.needed > 2 * UNET_SD1


def test_the_state_is_spread_over_a_hosts_chips_by_flax_alone():
    train = {"method": "full", "precision": "bf16"}
    whole, spread = (memory("tpu-v5e:2x2", train=train | {"backend": name}) for name in ("torch", "flax"))
    assert spread.parts["moments"] == pytest.approx(whole.parts["moments"] / 4, rel=1e-6)


def test_what_torch_spreads_over_four_gpus():
    whole, spread = (memory("nvidia-l4:4", train=FULL | {"ema": {}, "global_batch": 4, "fsdp": fsdp}) for fsdp in (False, True))
    for part in ("weights", "moments", "ema"):
        assert spread.parts[part] == pytest.approx(whole.parts[part] / 4, rel=1e-6)
    assert spread.parts.get("gradients", 0) <= whole.parts["gradients"] / 2
    # A block whole, with its gradients; but not the flat buffers.
    assert 0.1 * GIB < spread.parts["workspace"] - whole.parts["workspace"] < 2 * GIB
    assert memory("nvidia-l4", train=FULL | {"fsdp": True}).parts["moments"] == pytest.approx(8 * UNET_SD1, rel=0.01)


def test_whose_model_it_is():
    assert model_of(make_job()).shape is SD1

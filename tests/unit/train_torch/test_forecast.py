"""The step on tensors without numbers, against the same step with numbers."""

import json

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from fakes.torch_runs import make_task
from sdjob.train_torch.forecast import forecast, main

CASES = {
    "lora": {"method": "lora"},
    "lora, cached": {"method": "lora", "cache": "auto"},
    "full": {"method": "full", "ema": {}},
    "full, checkpointing": {"method": "full", "gradient_checkpointing": True, "device_batch": 2},
    "full, bf16": {"method": "full", "precision": "bf16"},
    "full, accumulation": {"method": "full", "global_batch": 3},
}


def task_of(model, *, accelerator="cpu", resolution=64, **train):
    method = train.pop("method")
    given = {"precision": "fp32", "cache": "never", "device_batch": 1, "global_batch": train.get("device_batch", 1), **train}
    return make_task(model, method=method, train=given, run={"accelerator": accelerator}, data={"resolution": resolution})


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_real_steps_memory(sd1, name):
    task = task_of(sd1, **CASES[name])
    told, real = forecast(task), forecast(task, numbers=True)
    assert told.peak_bytes == pytest.approx(real.peak_bytes, rel=0.01)
    assert told.flops == real.flops
    for part in ("weights", "moments", "ema"):
        assert told.parts.get(part) == real.parts.get(part)


@pytest.mark.parametrize(
    "train",
    [
        {"method": "lora", "cache": "auto"},
        {"method": "lora", "text_encoder": "lora"},
        {"method": "full", "text_encoder": "full", "precision": "bf16"},
    ],
    ids=["cached", "lora", "full"],
)
def test_it_is_the_real_steps_memory_of_sdxl(sdxl, train):
    task = task_of(sdxl, **train)
    told, real = forecast(task), forecast(task, numbers=True)
    assert told.peak_bytes == pytest.approx(real.peak_bytes, rel=0.01)
    assert told.flops == real.flops
    for part in ("weights", "moments"):
        assert told.parts[part] == real.parts[part]


def test_parts_are_what_they_are_called(sd1):
    found = forecast(task_of(sd1, method="full", ema={}))
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(sd1 / "unet"))
    rounded = sum(-(-4 * parameter.numel() // 512) * 512 for parameter in unet.parameters())
    assert found.parts["weights"] == found.parts["ema"] == rounded
    counts_of_steps = 512 * len(list(unet.parameters()))
    assert found.parts["moments"] == 2 * rounded + counts_of_steps
    assert sum(found.parts.values()) == found.peak_bytes


def test_checkpointing_keeps_less_and_computes_more(sd1):
    kept, again = (forecast(task_of(sd1, method="full", gradient_checkpointing=on, resolution=256)) for on in (False, True))
    assert again.parts["activations"] < 0.7 * kept.parts["activations"]
    assert again.flops > 1.2 * kept.flops


def test_encoders_that_ran_before_are_not_there(sd1):
    looped, cached = (forecast(task_of(sd1, method="lora", cache=cache)) for cache in ("never", "auto"))
    assert looped.parts["encoders"] > 0
    assert "encoders" not in cached.parts
    assert cached.flops < looped.flops


def test_norms_are_wide_on_cuda_alone(sd1):
    """What autocast widens there is kept for the backward pass in float32."""
    train = {"method": "full", "precision": "bf16"}
    narrow, wide = (forecast(task_of(sd1, **train, accelerator=name, resolution=256)) for name in ("cpu", "nvidia-l4"))
    assert wide.parts["activations"] > 1.1 * narrow.parts["activations"]


def test_the_process_prints_json(sd1, tmp_path, capsys):
    from sdjob.spec.task import write_task

    write_task(task_of(sd1, method="lora"), tmp_path / "task.json")
    assert main([str(tmp_path / "task.json")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["peak_bytes"] == sum(told["parts"].values())

"""Training on several devices is training on one, to rounding; parameters and moments are spread over them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fakes.tiny_models import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]


def train(model, out, *, devices):
    """(the checkpoint's tensors, the last step's state in bytes)"""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("tests", "jobspecs/quickstart", "runner")),
    }
    argv = [sys.executable, str(ROOT / "tests/fakes/flax_devices.py"), str(model), "full", str(out)]
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {**load_file(out / "weights.safetensors"), **load_file(out / "optimizer.safetensors")}, json.loads(
        done.stdout.split("\n")[-2]
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sd1"
    write_tiny_model(folder, family="sd1")
    return folder


def test_eight_devices_are_one_and_hold_an_eighth_each(model, tmp_path):
    alone, of_one = train(model, tmp_path / "1", devices=1)
    spread, of_eight = train(model, tmp_path / "8", devices=8)
    base = {f"unet.{name}": values for name, values in load_file(model / "unet/diffusion_pytorch_model.safetensors").items()}
    weights = base.keys()
    update = norm(alone[name] - base[name] for name in weights)
    assert update > 0
    assert norm(spread[name] - alone[name] for name in weights) <= 1e-3 * update
    for kind in ("optimizer.m.", "optimizer.v."):
        moments = [name for name in alone if name.startswith(kind)]
        assert norm(spread[name] - alone[name] for name in moments) <= 1e-3 * norm(alone[name] for name in moments)
    # Elsewhere than before, and the next step would be compiled anew.
    assert of_eight["stays"]
    assert of_one["device_bytes"] == of_one["state_bytes"] == of_eight["state_bytes"]
    assert of_eight["device_bytes"] <= 1.1 * of_eight["state_bytes"] / 8


def norm(tensors):
    return math.sqrt(sum(float(values.double().square().sum()) for values in tensors))

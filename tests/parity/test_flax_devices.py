"""Training on several devices is training on one, to rounding; parameters and moments are spread over them."""

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
    """(the checkpoint's tensors, what it printed)"""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("tests", "jobspecs/quickstart", "runner")),
    }
    argv = [sys.executable, str(ROOT / "tests/fakes/flax_devices.py"), str(model), "full", str(out)]
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {**load_file(out / "weights.safetensors"), **load_file(out / "optimizer.safetensors")}, done.stdout.split("\n")[-2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sd1"
    write_tiny_model(folder, family="sd1")
    return folder


def test_two_devices_are_one(model, tmp_path):
    alone, of_one = train(model, tmp_path / "1", devices=1)
    spread, of_two = train(model, tmp_path / "2", devices=2)
    base = {f"unet.{name}": values for name, values in load_file(model / "unet/diffusion_pytorch_model.safetensors").items()}
    weights = base.keys()
    update = norm(alone[name] - base[name] for name in weights)
    assert update > 0
    assert norm(spread[name] - alone[name] for name in weights) <= 1e-3 * update
    for kind in ("optimizer.m.", "optimizer.v."):
        moments = [name for name in alone if name.startswith(kind)]
        assert norm(spread[name] - alone[name] for name in moments) <= 1e-3 * norm(alone[name] for name in moments)
    assert of_one.startswith("spread 0 of")
    assert int(of_two.split()[1]) > 20


def norm(tensors):
    return math.sqrt(sum(float(values.double().square().sum()) for values in tensors))

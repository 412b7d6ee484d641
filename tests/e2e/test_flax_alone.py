"""Where only the flax extra is installed: no torch, no diffusers, no transformers, and nothing that nobody declares."""

import json
import os
import subprocess

import pytest
from PIL import Image
from safetensors.numpy import load_file

from fakes.environments import make_environment
from fakes.running import Running, tree

FLAX = {"train__backend": "flax", "train__steps": 2, "validation__images": 2}
AS_QUICKLY = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return str(make_environment(tmp_path_factory.mktemp("environment") / "flax", extras={"flax"}))


@pytest.mark.parametrize("package", ["torch", "diffusers", "transformers", "accelerate", "peft", "datasets", "pytest"])
def test_the_environment_is_without(python, package):
    done = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    assert f"No module named '{package}'" in done.stderr


def test_from_a_job_file_to_pictures(python, workshop, tmp_path):
    job = workshop.job(tmp_path / "job", **FLAX)
    environment = {**AS_QUICKLY, "SDJOB_SCRATCH": str(job.scratch)}
    command = [python, "-m", "sdjob", "run", "--log", "json", str(job.file)]
    ended = Running.begin(command, folder=job.folder, environment=environment).end()
    assert ended.code == 0, ended.output
    assert [name.rpartition("/")[2] for name in job.samples()] == ["00-00.png", "00-01.png"]
    weights = load_file(job.out / "pytorch_lora_weights.safetensors")
    assert weights
    assert all(name.startswith("unet.") for name in weights)
    versions = json.loads((job.out / "sdjob.json").read_text())["versions"]
    assert {"sdjob", "jax", "flax"} <= versions.keys()

    drawn = tmp_path / "drawn"
    argv = [
        python,
        "-m",
        "sdjob",
        "sample",
        str(job.file),
        "--prompt",
        "a red circle",
        "--out",
        str(drawn),
        "--inference-steps",
        "2",
    ]
    done = subprocess.run(
        argv, cwd=job.folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(drawn / "00-00.png")]
    assert list(tree(drawn)) == ["00-00.png"]
    with Image.open(drawn / "00-00.png") as picture:
        assert picture.size == (64, 64)

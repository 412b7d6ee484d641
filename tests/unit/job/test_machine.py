"""What this machine has, and what a job asks for that it lacks."""

from importlib import metadata
from pathlib import Path

import pytest

from fakes.checkpoints import make_job
from sdjob.core.errors import UnavailableError
from sdjob.job import machine
from sdjob.job.run import run_job
from sdjob.spec.hardware import parse_accelerator

CPU, GPU = parse_accelerator("cpu"), parse_accelerator("nvidia-l4")


def install(monkeypatch, *, versions, requires=()):
    """Packages' metadata, as pip would have written them."""

    def version(package):
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda package: list(requires))


class TestXformers:
    def test_needs_cuda(self):
        with pytest.raises(UnavailableError, match="xformers needs CUDA") as caught:
            machine.require_xformers(CPU)
        assert (caught.value.exit_code, caught.value.where) == (69, "train.attention")

    def test_absent(self, monkeypatch):
        install(monkeypatch, versions={"torch": "2.13.0+cu130"})
        with pytest.raises(UnavailableError, match="is not installed") as caught:
            machine.require_xformers(GPU)
        assert "`pip install xformers torch==2.13.0`" in str(caught.value)

    @pytest.mark.parametrize("requirement", ["torch==2.9.0", "torch (==2.9.0)", "torch == 2.9.0 ; sys_platform != 'darwin'"])
    def test_built_for_another_torch(self, monkeypatch, requirement):
        install(monkeypatch, versions={"torch": "2.13.0+cu130", "xformers": "0.0.33"}, requires=["numpy", requirement])
        with pytest.raises(UnavailableError, match=r"built for torch 2\.9\.0, and torch is 2\.13\.0\+cu130"):
            machine.require_xformers(GPU)

    @pytest.mark.parametrize("requirement", ["torch==2.13.0", "torch>=2.10", "torch", "torchvision==0.1"])
    def test_fits(self, monkeypatch, requirement):
        install(monkeypatch, versions={"torch": "2.13.0+cu130", "xformers": "0.0.33"}, requires=["numpy", requirement])
        machine.require_xformers(GPU)

    def test_a_job_without_an_accelerator_is_69_on_a_cpu_before_anything_is_read_or_written(self, tmp_path: Path):
        job = make_job(train={"attention": "xformers"}, checkpoint={"to": str(tmp_path / "run")})
        with pytest.raises(UnavailableError, match="xformers needs CUDA"):
            run_job(job, stop=None, clock=None, log=None)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("driver_name", "name"),
    [
        ("Tesla T4", "nvidia-t4"),
        ("NVIDIA L4", "nvidia-l4"),
        ("NVIDIA L40S", "nvidia-l40s"),
        ("NVIDIA GeForce RTX 2080 Ti", "nvidia-rtx-2080-ti"),
        ("NVIDIA Thing 9", "nvidia"),
    ],
)
def test_names_of_the_driver(driver_name, name):
    assert machine.nvidia_name(driver_name) == name

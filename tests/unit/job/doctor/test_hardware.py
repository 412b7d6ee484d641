"""What is said of this machine."""

import pytest

from fakes import nvidia
from sdjob.core.errors import UnavailableError
from sdjob.job import machine
from sdjob.job.accelerators import Tpus
from sdjob.job.cgroup import MemoryLimit
from sdjob.job.doctor import hardware

GIB = 2**30


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """A machine without any device, whatever this one has."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(hardware, "tpus", Tpus)
    monkeypatch.setattr(hardware, "gpu_files", list)


def told(findings):
    return [(finding.state, finding.what) for finding in findings]


class TestAccelerators:
    def test_none_is_a_warning_where_one_may_be_expected(self):
        nothing = "no NVIDIA device and no TPU: jobs train on the CPU."
        assert told(hardware.accelerators(expected=True)) == [("warning", nothing)]
        assert told(hardware.accelerators(expected=False)) == [("ok", nothing)]

    def test_gpus(self, monkeypatch, tmp_path):
        nvidia.install(monkeypatch, tmp_path, "l4", "l4")
        what = "2 x NVIDIA L4 (run.accelerator: nvidia-l4:2), 23034 MiB each, compute capability 8.9, driver 550.54.15."
        assert told(hardware.accelerators(expected=True)) == [("ok", what)]

    def test_gpus_of_several_kinds(self, monkeypatch, tmp_path):
        nvidia.install(monkeypatch, tmp_path, "l4", "t4")
        ((_, what),) = told(hardware.accelerators(expected=True))
        assert "also Tesla T4" in what

    def test_devices_without_the_drivers_tools(self, monkeypatch):
        monkeypatch.setattr(hardware, "gpu_files", lambda: ["nvidia0"])
        ((state, what),) = told(hardware.accelerators(expected=False))
        assert (state, what) == ("warning", "the kernel shows nvidia0, and nvidia-smi does not run here.")

    def test_tpus(self, monkeypatch):
        monkeypatch.setattr(hardware, "tpus", lambda: Tpus(("v5e",) * 4, ("/dev/vfio/0",), ("TPU_TOPOLOGY=2x2",)))
        assert told(hardware.accelerators(expected=True)) == [("ok", "4 TPU chips v5e; devices /dev/vfio/0; TPU_TOPOLOGY=2x2.")]


class TestTorchOnGpus:
    def test_not_asked_without_a_gpu(self, monkeypatch):
        monkeypatch.setattr(hardware, "torch_trial", lambda: pytest.fail("torch was started"))
        assert list(hardware.torch_on_gpus()) == []

    def test_the_torch_of_this_machine_cannot_use_a_gpu_that_is_not_there(self, monkeypatch, tmp_path):
        """The real torch in a process of its own: here it is built for the CPU, or finds no device."""
        nvidia.install(monkeypatch, tmp_path, "l4")
        (finding,) = hardware.torch_on_gpus()
        assert (finding.state, finding.exit_code) == ("failed", 69)
        assert "can use 0 of the 1 NVIDIA devices" in finding.what
        assert machine.installed_version("torch") in finding.what

    def test_one_that_can(self, monkeypatch, tmp_path):
        nvidia.install(monkeypatch, tmp_path, "l4")
        monkeypatch.setattr(hardware, "torch_trial", lambda: {"version": "2.13.0", "cuda": "13.0", "devices": 1})
        assert told(hardware.torch_on_gpus()) == [("ok", "torch 2.13.0 with CUDA 13.0 computes on all 1 devices.")]

    def test_one_that_breaks(self, monkeypatch):
        monkeypatch.setattr(hardware, "TORCH_TRIAL", "import sys; sys.exit('libcuda.so: broken')")
        with pytest.raises(UnavailableError, match=r"torch cannot use the devices: libcuda\.so: broken"):
            hardware.torch_trial()

    def test_one_that_hangs(self, monkeypatch):
        monkeypatch.setattr(hardware, "TORCH_TRIAL", "import time; time.sleep(600)")
        monkeypatch.setattr(hardware, "TORCH_TRIAL_S", 0.2)
        with pytest.raises(UnavailableError, match=r"torch has not answered within 0\.2 s"):
            hardware.torch_trial()


class TestMemory:
    @pytest.fixture(autouse=True)
    def machine_of_64_gib(self, monkeypatch):
        monkeypatch.setattr(hardware, "memory_of_machine", lambda: (64 * GIB, 48 * GIB))
        self.patch = monkeypatch

    def limit(self, limit):
        self.patch.setattr(hardware, "memory_limit", lambda: limit)
        return told(hardware.memory())

    def test_of_the_machine(self):
        assert self.limit(None) == [("ok", "48.0 GiB of 64.0 GiB are available.")]
        assert self.limit(MemoryLimit(99 * GIB, 0)) == [("ok", "48.0 GiB of 64.0 GiB are available.")]

    def test_of_a_container(self):
        what = "15.0 GiB are available of the container's 16.0 GiB (the machine has 64.0 GiB)."
        assert self.limit(MemoryLimit(16 * GIB, GIB)) == [("ok", what)]

    def test_too_little_for_a_base_model(self):
        assert self.limit(MemoryLimit(4 * GIB, GIB))[0][0] == "warning"


def test_memory_in_the_kernels_own_words(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\nHugePages_Total: 0\n")
    assert hardware.memory_of_machine(tmp_path / "meminfo") == (2048 * 1024, 1024 * 1024)


def test_cores_say_what_limits_them(monkeypatch):
    monkeypatch.setattr(hardware, "cpu_quota", lambda: 3.5)
    monkeypatch.setattr(machine, "num_cores", lambda: 3)
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 64)
    assert told(hardware.cores()) == [("ok", "3 of 64 cores may be used, the container's quota is 3.5.")]

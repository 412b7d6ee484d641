"""What this machine has, and what a job asks for that it lacks."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from fakes import nvidia
from fakes.checkpoints import make_job
from fakes.clock import FakeClock
from sdjob.core.errors import UnavailableError, UsageError
from sdjob.job import accelerators, machine
from sdjob.job.accelerators import Gpu, Tpus, gpu_of, gpus, tpus
from sdjob.job.cgroup import MemoryLimit, cpu_quota, memory_limit
from sdjob.job.doctor import fit
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


class TestCompiler:
    @pytest.fixture(autouse=True)
    def bare(self, monkeypatch, tmp_path):
        """Only what stands in `here` is installed, and Python's header files."""
        for name in ("CC", "CXX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(machine.shutil, "which", lambda name: name if name in self.here else None)
        monkeypatch.setattr(machine.sysconfig, "get_path", lambda _: str(tmp_path))
        (tmp_path / "Python.h").touch()
        self.here, self.headers, self.scratch = set(), tmp_path / "Python.h", Path("/scratch")

    @pytest.mark.parametrize(("accelerator", "needed"), [(CPU, "g++"), (GPU, "gcc or clang")])
    def test_absent(self, accelerator, needed):
        with pytest.raises(UnavailableError, match=re.escape(f"a compiler ({needed}), and this machine")) as caught:
            machine.require_compiler(accelerator, scratch=self.scratch)
        assert (caught.value.exit_code, caught.value.where) == (69, "train.compile")
        assert "apt-get install g++ python3-dev" in str(caught.value)

    def test_python_without_its_header_files(self):
        self.here = {"g++"}
        machine.require_compiler(CPU, scratch=self.scratch)
        self.headers.unlink()
        with pytest.raises(UnavailableError, match=r"torch\.compile needs Python's header files"):
            machine.require_compiler(CPU, scratch=self.scratch)

    def test_a_scratch_that_the_compiler_would_not_find(self):
        self.here = {"g++"}
        with pytest.raises(UsageError, match="a blank would end them"):
            machine.require_compiler(CPU, scratch=Path("/my disk"))

    def test_the_one_that_the_environment_names(self, monkeypatch):
        self.here = {"g++", "clang"}
        machine.require_compiler(GPU, scratch=self.scratch)
        monkeypatch.setenv("CXX", "icpx")
        with pytest.raises(UnavailableError, match="icpx"):
            machine.require_compiler(CPU, scratch=self.scratch)
        self.here.add("icpx")
        machine.require_compiler(CPU, scratch=self.scratch)

    def test_a_run_asks_before_anything_is_read_or_written(self, tmp_path: Path):
        job = make_job(train={"compile": True}, checkpoint={"to": str(tmp_path / "run")})
        with pytest.raises(UnavailableError, match=r"torch\.compile needs"):
            run_job(job, stop=None, clock=FakeClock(), log=None, vitals=None)
        assert not (tmp_path / "run").exists()

    def test_the_doctor_asks_too(self):
        assert list(fit.compiling(make_job())) == []
        with pytest.raises(UnavailableError, match=r"torch\.compile needs"):
            list(fit.compiling(make_job(train={"compile": True})))
        self.here = {"g++"}
        assert [found.what for found in fit.compiling(make_job(train={"compile": True}))] == ["a compiler is installed."]


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
            run_job(job, stop=None, clock=FakeClock(), log=None, vitals=None)
        assert list(tmp_path.iterdir()) == []


class TestOptimizer:
    def test_adamw8bit_needs_cuda(self):
        with pytest.raises(UnavailableError, match="adamw8bit needs CUDA") as caught:
            machine.require_optimizer("adamw8bit", accelerator=CPU)
        assert (caught.value.exit_code, caught.value.where) == (69, "train.optimizer.name")

    @pytest.mark.parametrize(("name", "package"), [("adamw8bit", "bitsandbytes"), ("prodigy", "prodigyopt")])
    def test_its_package_is_named_with_its_line_for_pip(self, monkeypatch, name, package):
        install(monkeypatch, versions={"torch": "2.13.0"})
        with pytest.raises(UnavailableError, match=rf"needs the package {package}.*pip install 'sdjob\[{name}\]'"):
            machine.require_optimizer(name, accelerator=GPU)
        install(monkeypatch, versions={package: "1.0"})
        machine.require_optimizer(name, accelerator=GPU)

    @pytest.mark.parametrize("name", ["adamw", "adafactor"])
    def test_the_others_need_nothing(self, monkeypatch, name):
        install(monkeypatch, versions={})
        machine.require_optimizer(name, accelerator=CPU)

    def test_a_job_that_cannot_have_it_is_69_before_anything_is_read_or_written(self, tmp_path: Path):
        job = make_job(train={"optimizer": {"name": "adamw8bit"}}, checkpoint={"to": str(tmp_path / "run")})
        with pytest.raises(UnavailableError, match="adamw8bit needs CUDA"):
            run_job(job, stop=None, clock=FakeClock(), log=None, vitals=None)
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


class TestGpus:
    def test_what_the_driver_says(self, monkeypatch, tmp_path):
        nvidia.install(monkeypatch, tmp_path, "l4", "l4")
        assert gpus() == [Gpu("NVIDIA L4", "550.54.15", 23034, (8, 9))] * 2
        assert machine.accelerator_here() == "nvidia-l4:2"
        machine.require(parse_accelerator("nvidia-l4:2"))
        with pytest.raises(UnavailableError, match="asks for 3 NVIDIA"):
            machine.require(parse_accelerator("nvidia-l4:3"))

    def test_a_driver_that_does_not_know_compute_cap_still_names_its_devices(self, monkeypatch, tmp_path):
        nvidia.install(monkeypatch, tmp_path, "t4", old=True)
        assert gpus() == [Gpu("Tesla T4")]

    @pytest.mark.parametrize(
        ("row", "gpu"),
        [
            ("Tesla T4, 535.104.05, 15360, 7.5", Gpu("Tesla T4", "535.104.05", 15360, (7, 5))),
            ("NVIDIA GB10, 580.1, [N/A], 12.1", Gpu("NVIDIA GB10", "580.1", None, (12, 1))),
            ("A, B, 1.2, 99, [Not Supported]", Gpu("A, B", "1.2", 99, None)),
        ],
    )
    def test_rows(self, row, gpu):
        assert gpu_of(row) == gpu

    @pytest.mark.parametrize("script", ["#!/bin/sh\necho 'NVIDIA-SMI has failed' ; exit 9\n", "#!/no/such/interpreter\n"])
    def test_a_tool_that_fails_is_no_device(self, monkeypatch, tmp_path, script):
        nvidia.install(monkeypatch, tmp_path, script=script)
        assert gpus() == []

    def test_a_hanging_driver_is_69(self, monkeypatch, tmp_path):
        nvidia.install(monkeypatch, tmp_path, script="#!/bin/sh\nexec sleep 600\n")
        monkeypatch.setattr(accelerators, "NVIDIA_SMI_S", 0.2)
        with pytest.raises(UnavailableError, match=r"not answered within 0\.2 s: the NVIDIA driver hangs"):
            gpus()


class TestTpus:
    def pci(self, root: Path, number: int, *, vendor: str, device: str) -> None:
        folder = root / "sys/bus/pci/devices" / f"0000:00:{number:02d}.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "device").write_text(device + "\n")

    def touch(self, root: Path, *names: str) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()

    def test_chips_and_their_files(self, tmp_path):
        for number in range(4):
            self.pci(tmp_path, number, vendor="0x1ae0", device="0x0063")
        self.pci(tmp_path, 9, vendor="0x1ae0", device="0x0042")  # Google's network card
        self.touch(tmp_path, "dev/vfio/0", "dev/vfio/1", "dev/vfio/vfio")
        environment = {"TPU_TOPOLOGY": "2x2", "TPU_OTHER": "x", "TPU_WORKER_ID": ""}
        found = tpus(root=tmp_path, environment=environment)
        assert found == Tpus(("v5e",) * 4, ("/dev/vfio/0", "/dev/vfio/1"), ("TPU_TOPOLOGY=2x2",))

    def test_an_older_machine_has_accel_files(self, tmp_path):
        self.touch(tmp_path, "dev/accel0", "dev/accel1")
        assert tpus(root=tmp_path, environment={}).devices == ("/dev/accel0", "/dev/accel1")

    def test_a_card_that_is_handed_through_is_no_tpu(self, tmp_path):
        self.touch(tmp_path, "dev/vfio/7")
        self.pci(tmp_path, 1, vendor="0x10de", device="0x0063")
        assert tpus(root=tmp_path, environment={}) == Tpus()


class TestContainer:
    """Control groups as the kernel lays them out, in a folder."""

    def tree(self, root: Path, groups: str, **files: str) -> dict[str, Path]:
        for name, text in files.items():
            path = root / "mounted" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        (root / "groups").write_text(groups)
        return {"groups": root / "groups", "mounted": root / "mounted"}

    def test_version_2_of_a_pod(self, tmp_path):
        files = {"cpu_dot_max": "350000 100000", "memory_dot_max": "4294967296", "memory_dot_current": "1024"}
        places = self.tree(tmp_path, "0::/\n", **files)
        assert cpu_quota(**places) == 3.5
        assert memory_limit(**places) == MemoryLimit(4 * 2**30, 1024)

    def test_the_tightest_of_the_groups_above_counts(self, tmp_path):
        files = {"a__b__cpu_dot_max": "max 100000", "a__cpu_dot_max": "200000 100000", "cpu_dot_max": "900000 100000"}
        assert cpu_quota(**self.tree(tmp_path, "0::/a/b\n", **files)) == 2.0

    def test_version_1(self, tmp_path):
        files = {
            "cpu,cpuacct__x__cpu_dot_cfs_quota_us": "150000",
            "cpu,cpuacct__x__cpu_dot_cfs_period_us": "100000",
            "memory__x__memory_dot_limit_in_bytes": "9223372036854771712",
            "memory__x__memory_dot_usage_in_bytes": "5",
        }
        places = self.tree(tmp_path, "4:memory:/x\n3:cpu,cpuacct:/x\n1:name=systemd:/y\n", **files)
        assert cpu_quota(**places) == 1.5
        assert memory_limit(**places) is None

    def test_no_limit(self, tmp_path):
        places = self.tree(tmp_path, "0::/a\n", a__cpu_dot_max="max 100000", a__memory_dot_max="max", a__memory_dot_current="1")
        assert (cpu_quota(**places), memory_limit(**places)) == (None, None)
        assert cpu_quota(groups=tmp_path / "none", mounted=tmp_path) is None

    @pytest.mark.parametrize(("quota", "cores"), [(None, 8), (16.0, 8), (3.5, 3), (0.25, 1)])
    def test_threads_follow_the_quota(self, monkeypatch, quota, cores):
        monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
        monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)))
        assert machine.num_cores() == cores


class TestInstructionSet:
    @pytest.mark.parametrize(
        ("named", "widest", "held"),
        [(None, "avx512", "avx512"), ("", "avx2", "avx2"), ("avx2", "avx512", "avx2"), ("avx512", "avx512", "avx512")],
    )
    def test_it_is_the_named_one_or_the_widest(self, monkeypatch, named, widest, held):
        monkeypatch.setattr(machine, "widest_isa", lambda: widest)
        monkeypatch.delenv(machine.ISA, raising=False)
        if named is not None:
            monkeypatch.setenv(machine.ISA, named)
        assert machine.isa() == held

    @pytest.mark.parametrize(("named", "what"), [("sse", "'sse' is no instruction set"), ("avx512", "this CPU has no AVX-512")])
    def test_one_that_is_not_there_is_refused(self, monkeypatch, named, what):
        monkeypatch.setattr(machine, "widest_isa", lambda: "avx2")
        monkeypatch.setenv(machine.ISA, named)
        with pytest.raises(UsageError, match=what):
            machine.isa()

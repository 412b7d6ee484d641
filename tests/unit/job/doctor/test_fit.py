"""What a job asks of the machine."""

import pytest

from fakes import nvidia
from fakes.checkpoints import make_job
from sdjob.core.errors import UnavailableError
from sdjob.job import machine
from sdjob.job.accelerators import Tpus
from sdjob.job.doctor import fit
from sdjob.spec.run import RunSpec


def job_on(accelerator, **train):
    return make_job(run={"accelerator": accelerator}, train={"global_batch": 8, **train})


def told(findings):
    return [(finding.state, finding.what) for finding in findings]


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    return lambda *names: nvidia.install(monkeypatch, tmp_path, *names)


class TestAccelerator:
    def test_what_is_here(self, gpus):
        gpus("l4", "l4")
        assert told(fit.accelerator(job_on("nvidia-l4:2"))) == [("ok", "nvidia-l4:2: 2 processes here.")]
        assert told(fit.accelerator(job_on("nvidia"))) == [("ok", "nvidia: 1 process here.")]

    def test_one_that_is_not_here_is_69(self, gpus):
        with pytest.raises(UnavailableError, match="this machine has 0"):
            list(fit.accelerator(job_on("nvidia-l4")))

    def test_another_one_than_the_job_names(self, gpus):
        gpus("t4")
        assert told(fit.accelerator(job_on("nvidia-l4"))) == [
            ("warning", "the job names nvidia-l4, and this machine has nvidia-t4.")
        ]

    def test_a_name_without_its_memory_is_the_same_device(self, gpus):
        gpus("a100")
        assert told(fit.accelerator(job_on("nvidia-a100-40gb")))[0][0] == "ok"

    def test_more_processes_than_cores(self, gpus, monkeypatch):
        monkeypatch.setattr(machine, "num_cores", lambda: 2)
        assert told(fit.accelerator(job_on("cpu:4"))) == [("warning", "cpu:4: 4 processes share 2 cores.")]

    def test_a_tpu(self, monkeypatch):
        job = job_on("tpu-v5e:2x2", backend="flax")
        monkeypatch.setattr(fit, "tpus", Tpus)
        with pytest.raises(UnavailableError, match="asks for TPU v5e, and this machine has none"):
            list(fit.accelerator(job))
        monkeypatch.setattr(fit, "tpus", lambda: Tpus(("v5e",)))
        with pytest.raises(UnavailableError, match="has 4 TPU chips, and this machine shows 1"):
            list(fit.accelerator(job))
        monkeypatch.setattr(fit, "tpus", lambda: Tpus(("v5e",) * 4))
        assert told(fit.accelerator(job))[0][0] == "ok"


class TestPrecision:
    def test_auto_says_what_it_comes_to(self, gpus):
        assert told(fit.precision(job_on("cpu"))) == [("ok", "fp32 (auto).")]
        gpus("t4")
        assert told(fit.precision(job_on("nvidia-t4"))) == [("ok", "fp16 (auto).")]

    def test_bf16_by_name_on_a_device_without_it_is_69(self, gpus):
        """The job file alone cannot know: it names no device, or another one than is here."""
        gpus("t4")
        with pytest.raises(UnavailableError, match="Tesla T4 has no bf16") as caught:
            list(fit.precision(job_on("nvidia-l4", precision="bf16")))
        assert (caught.value.exit_code, caught.value.next_step) == (69, "Set train.precision: fp16.")
        with pytest.raises(UnavailableError, match="has no bf16, which auto comes to"):
            list(fit.precision(job_on("nvidia")))

    def test_bf16_where_it_is(self, gpus):
        gpus("l4")
        assert told(fit.precision(job_on("nvidia-l4", precision="bf16"))) == [("ok", "bf16.")]


class TestAttention:
    def test_sdpa_needs_nothing(self):
        assert list(fit.attention(job_on("cpu"))) == []

    def test_xformers_without_cuda_is_69(self):
        with pytest.raises(UnavailableError, match="xformers needs CUDA"):
            list(fit.attention(make_job(train={"attention": "xformers"})))

    def test_xformers_that_is_there(self, monkeypatch):
        monkeypatch.setattr(machine, "require_xformers", lambda _: None)
        monkeypatch.setattr(machine, "installed_version", lambda _: "0.0.33")
        assert told(fit.attention(job_on("nvidia-l4", attention="xformers"))) == [("ok", "xformers 0.0.33 is installed.")]


class TestNotice:
    def notice(self, environment=None, **run):
        return told(fit.notice(RunSpec.model_validate(run), environment=environment or {}))

    def test_whence_it_comes(self):
        local = "a stop leaves 10 s to save: the default outside of a cluster; run.notice_s says otherwise."
        assert self.notice() == [("ok", local)]
        assert self.notice(notice_s=45) == [("ok", "a stop leaves 45 s to save: the job says so.")]
        spot = "a stop leaves 15 s to save: the default for spot nodes of run.kubernetes.flavor gke."
        assert self.notice(kubernetes={"flavor": "gke"}, spot=True) == [("ok", spot)]

    def test_a_pod_whose_job_does_not_know_of_it(self):
        pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        assert self.notice(environment=pod)[0][0] == "warning"
        assert self.notice(environment=pod, notice_s=20)[0][0] == "ok"

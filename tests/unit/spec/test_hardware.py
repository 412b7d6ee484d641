import pytest

from sdjob.core.errors import UsageError
from sdjob.spec.clouds import AKS, EKS, GKE, Cloud
from sdjob.spec.hardware import Accelerator, num_devices, parse_accelerator, resolve_deterministic, resolve_precision
from sdjob.spec.nvidia import GPUS, SAME
from sdjob.spec.run import KubernetesSpec, RunSpec, grace_s, notice_s
from sdjob.spec.tpu import GENERATIONS, num_chips


@pytest.mark.parametrize(
    ("text", "accelerator"),
    [
        (None, Accelerator("cpu", None, 1)),
        ("cpu", Accelerator("cpu", None, 1)),
        ("cpu:4", Accelerator("cpu", None, 4)),
        ("nvidia:2", Accelerator("nvidia", None, 2)),
        ("nvidia-l4", Accelerator("nvidia", "l4", 1)),
        ("nvidia-h100-80gb:8", Accelerator("nvidia", "h100-80gb", 8)),
        ("tpu-v5e:1x1", Accelerator("tpu", "v5e", 1, 1, "1x1", 1)),
        ("tpu-v5e:2x4@8t", Accelerator("tpu", "v5e", 8, 1, "2x4", 8)),
        ("tpu-v6e:2x4@4t", Accelerator("tpu", "v6e", 4, 2, "2x4", 4)),
        ("tpu-v4:2x2x4", Accelerator("tpu", "v4", 4, 4, "2x2x4", 4)),
        ("tpu-v7x:1x1x1", Accelerator("tpu", "v7x", 2, 1, "1x1x1", 1)),
    ],
)
def test_accelerators(text: str | None, accelerator: Accelerator):
    assert parse_accelerator(text) == accelerator


@pytest.mark.parametrize(
    "text",
    [
        "gpu",
        "cpu-4",
        "cpu:0",
        "cpu:x",
        "cpu:",
        "cpu:999",
        "CPU",
        "nvidia-",
        "nvidia-l44",
        "nvidia-l4:17",
        "nvidia-l4:-1",
        "tpu",
        "tpu-v5e",
        "tpu-v5e:2x4",
        "tpu-v5e:3x3",
        "tpu-v5e:4x4@8t",
        "tpu-v4:4x4x6",
        "tpu-v9:1x1",
        "tpu-v5e:2x4@",
        "nvidiax",
    ],
)
def test_what_is_no_accelerator(text: str):
    if text == "tpu-v5e:2x4@":
        text += "t"
    with pytest.raises(UsageError):
        parse_accelerator(text)


def test_hosts_and_chips_add_up():
    for generation in GENERATIONS.values():
        for topology, machines in generation.shapes.items():
            for chips in machines:
                slice_ = parse_accelerator(f"tpu-{generation.name}:{topology}@{chips}t")
                assert slice_.hosts * chips == num_chips(topology)


def test_known_slices_of_the_large_generations_exist():
    assert {"4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x12", "8x8x16", "8x16x16"} <= GENERATIONS["v4"].shapes.keys()
    assert "4x4x6" not in GENERATIONS["v4"].shapes


@pytest.mark.parametrize(
    ("text", "memory_gib", "peak_tflops"),
    [
        ("nvidia-l4:4", 24, 121),
        ("nvidia-t4", 16, 65),
        ("nvidia-a100-80gb", 80, 312),
        ("nvidia-h100", 80, 989),
        ("nvidia-rtx-4050", 6, None),
        ("tpu-v5e:1x1", 16, 197),
        ("tpu-v6e:4x4", 32, 918),
        ("tpu-v7x:2x2x1", 96, 1153.5),  # half a chip each
        ("nvidia:2", None, None),
        ("cpu:2", None, None),
    ],
)
def test_what_a_device_can_do(text: str, memory_gib: float | None, peak_tflops: float | None):
    accelerator = parse_accelerator(text)
    assert accelerator.device_memory_gib == memory_gib
    assert accelerator.device_peak_flops == (peak_tflops and peak_tflops * 1e12)


def test_the_clouds_speak_of_known_gpus():
    for cloud in (GKE, EKS, AKS):
        assert cloud.gpus.keys() <= GPUS.keys() - SAME.keys()
        for gpu in cloud.gpus.values():
            assert all(gpu.machines.values())
    assert SAME.keys() | set(SAME.values()) <= GPUS.keys()


def test_machines_with_so_many_gpus():
    assert GKE.gpu("h100", count=8).label == "nvidia-h100-80gb"
    assert EKS.gpu("a10g", count=4).machines_with(4) == ["g5.12xlarge", "g5.24xlarge", "g5.48xlarge"]
    assert AKS.gpu("a100-80gb", count=3).machines_with(3) == ["Standard_NC96ads_A100_v4", "Standard_ND96amsr_A100_v4"]


@pytest.mark.parametrize(
    ("cloud", "name", "count", "words"),
    [
        (GKE, "rtx-4090", 1, "GKE has no nvidia-rtx-4090; it has nvidia-t4, nvidia-v100"),
        (EKS, "h100-mega-80gb", 8, "EKS has no nvidia-h100-mega-80gb"),
        (AKS, "t4", 8, "AKS has at most 4 nvidia-t4 in one machine; run.nodes takes more"),
    ],
)
def test_what_a_cloud_does_not_have(cloud: Cloud, name: str, count: int, words: str):
    with pytest.raises(UsageError, match=words):
        cloud.gpu(name, count=count)


def test_devices_of_the_whole_job():
    assert num_devices(parse_accelerator("nvidia-l4:4"), nodes=2, slices=1) == 8
    assert num_devices(parse_accelerator("tpu-v5e:4x4"), nodes=1, slices=2) == 32


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("cpu", "fp32"),
        ("nvidia-l4", "bf16"),
        ("nvidia-t4", "fp16"),
        ("nvidia-v100:8", "fp16"),
        ("nvidia", "bf16"),
        ("tpu-v5e:1x1", "bf16"),
    ],
)
def test_auto_precision(text: str, precision: str):
    assert resolve_precision("auto", accelerator=parse_accelerator(text)) == precision
    assert resolve_precision("fp32", accelerator=parse_accelerator(text)) == "fp32"


def test_auto_determinism():
    assert resolve_deterministic("auto", accelerator=parse_accelerator("cpu"))
    assert resolve_deterministic("auto", accelerator=parse_accelerator("tpu-v5e:1x1"))
    assert not resolve_deterministic("auto", accelerator=parse_accelerator("nvidia-l4"))
    assert resolve_deterministic(True, accelerator=parse_accelerator("nvidia-l4"))


def test_notice():
    assert notice_s(RunSpec()) == 10
    assert notice_s(RunSpec(notice_s=3)) == 3
    assert notice_s(RunSpec(spot=True, kubernetes=KubernetesSpec(flavor="gke"))) == 15
    assert notice_s(RunSpec(kubernetes=KubernetesSpec(flavor="gke"))) == 25
    assert notice_s(RunSpec(spot=True, kubernetes=KubernetesSpec(flavor="eks"))) == 90
    assert notice_s(RunSpec(spot=True, kubernetes=KubernetesSpec(flavor="aks"))) == 25


@pytest.mark.parametrize(
    ("run", "seconds"),
    [
        (RunSpec(spot=True, kubernetes=KubernetesSpec(flavor="gke")), 25),
        (RunSpec(spot=True, kubernetes=KubernetesSpec(flavor="gke-autopilot")), 25),
        (RunSpec(spot=True, kubernetes=KubernetesSpec(flavor="eks")), 90),
        (RunSpec(spot=True, kubernetes=KubernetesSpec(flavor="eks-managed")), 90),
        (RunSpec(spot=True, kubernetes=KubernetesSpec(flavor="aks")), 30),
        (RunSpec(spot=True, kubernetes=KubernetesSpec()), 30),
        (RunSpec(kubernetes=KubernetesSpec(flavor="gke")), 30),
        (RunSpec(kubernetes=KubernetesSpec(flavor="eks")), 95),
        (RunSpec(spot=True, notice_s=12, kubernetes=KubernetesSpec(flavor="gke")), 25),
        (RunSpec(spot=True, notice_s=100, kubernetes=KubernetesSpec(flavor="gke")), 105),  # where the nodes' notice was extended
        (RunSpec(notice_s=600.5, kubernetes=KubernetesSpec(flavor="gke")), 606),
    ],
)
def test_grace_is_never_shorter_than_the_notice(run: RunSpec, seconds: int):
    assert grace_s(run) == seconds
    assert grace_s(run) >= notice_s(run)

import pytest

from sdjob.core.errors import UsageError
from sdjob.spec.hardware import Accelerator, num_devices, parse_accelerator, resolve_deterministic, resolve_precision
from sdjob.spec.run import KubernetesSpec, RunSpec, notice_s
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

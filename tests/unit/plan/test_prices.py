"""Whose price it is, and files of prices of one's own."""

import re
from pathlib import Path

import pytest

from sdjob.core.errors import MissingError, UsageError
from sdjob.plan.prices import chips_of, price_of, read_prices
from sdjob.spec.hardware import parse_accelerator
from sdjob.spec.nvidia import GPUS
from sdjob.spec.tpu import GENERATIONS
from unit.plan.jobs import make_job, plan_of

ROWS = read_prices(None)


def price(accelerator: str, *, flavor: str | None = None, spot: bool = False, rows=ROWS):
    run = {"spot": spot, **({"kubernetes": {"flavor": flavor, "image": "i"}} if flavor else {})}
    backend = "flax" if accelerator.startswith("tpu") else "torch"
    job = make_job(accelerator, run=run, train={"method": "lora", "backend": backend})
    return price_of(job, machine=parse_accelerator(accelerator), rows=rows)


def own(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    return file


def test_the_table_is_dated_and_sane():
    assert {row.cloud for row in ROWS} == {"gke", "eks"}
    for row in ROWS:
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row.looked_up)
        assert row.device in GPUS or row.device in GENERATIONS
        assert row.on_demand is not None
        assert row.spot is not None
        assert 0 < row.spot < row.on_demand < 20


def test_of_the_cloud_that_the_job_names():
    on_gke, on_eks = (price("nvidia-l4", flavor=flavor) for flavor in ("gke-autopilot", "eks-managed"))
    assert on_gke.where.startswith("Google Cloud, us-central1")
    assert on_eks.where.startswith("AWS, us-east-2")
    assert price("nvidia-l4") == on_gke
    assert price("nvidia-l4", flavor="aks") is None
    assert price("nvidia-rtx-3090") is None
    assert price("cpu") is None


def test_spot_and_other_names_of_a_device():
    assert price("nvidia-l4", spot=True).usd < price("nvidia-l4").usd
    assert price("nvidia-a100-40gb") == price("nvidia-a100")


@pytest.mark.parametrize(
    ("accelerator", "chips"), [("nvidia-l4:4", 8), ("tpu-v5e:2x4@8t", 8), ("tpu-v5e:4x4", 16), ("tpu-v7x:2x2x1", 4), ("cpu:2", 4)]
)
def test_what_is_paid_for(accelerator, chips):
    machine = parse_accelerator(accelerator)
    assert chips_of(machine, nodes=1 if machine.kind == "tpu" else 2, slices=1) == chips


def test_hours_times_devices_times_price():
    found = plan_of(make_job("nvidia-a100:8", run={"nodes": 2}))
    assert found.usd.high == pytest.approx(found.hours.high * 16 * 3.673)


def test_prices_of_ones_own_come_first(tmp_path):
    text = 'looked_up = "2027-01-02"\n[gke.devices]\nl4 = {on_demand = 0.5, region = "here"}\n[aks.devices]\nt4 = {spot = 1}\n'
    rows = read_prices(own(tmp_path, text))
    negotiated = price("nvidia-l4", rows=rows)
    assert (negotiated.usd, negotiated.where, negotiated.looked_up) == (0.5, "gke, here", "2027-01-02")
    assert price("nvidia-t4", flavor="aks", spot=True, rows=rows).usd == 1
    # What the file does not say is in the table still.
    assert price("nvidia-l4", spot=True, rows=rows) == price("nvidia-l4", spot=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gke", "is no TOML"),
        ("[gke]\ndevices = 3", "gke: has no table 'devices'"),
        ("gke = 3", "gke: has no table 'devices'"),
        ("[gke.devices]\nl4 = 3", "gke.devices.l4: has no table 'l4'"),
        ("[gke.devices]\nl4 = {}", "gke.devices.l4: has neither on_demand nor spot"),
        ("[gke.devices]\nl4 = {spot = 'cheap'}", "gke.devices.l4.spot: must be US dollars an hour, not 'cheap'"),
        ("[gke.devices]\nl4 = {spot = -1}", "must be US dollars an hour, not -1"),
        ("[gke.devices]\nl4 = {spot = inf}", "must be US dollars"),
        ("[gke.devices]\nl4 = {on_demand = true}", "must be US dollars"),
    ],
)
def test_a_file_that_is_wrong(tmp_path, text, told):
    file = own(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_prices(file)
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingError):
        read_prices(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_prices(tmp_path)

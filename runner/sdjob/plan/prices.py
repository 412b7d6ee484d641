"""What an hour costs: a dated table, or the user's own. A device that no source prices is left out, never guessed."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdjob.core.errors import MissingError, UsageError
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.nvidia import SAME

TABLE = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True)
class Price:
    """US dollars an hour, of one GPU or TPU chip."""

    usd: float
    spot: bool
    where: str
    looked_up: str

    def of_hours(self, hours: float, *, devices: int) -> float:
        return self.usd * hours * devices


def price_of(job: JobSpec, *, machine: Accelerator, table: dict[str, Any]) -> Price | None:
    """None where the table does not have it."""
    row = row_of(job, machine=machine, table=table)
    if row is None or (usd := row.get("spot" if job.run.spot else "on_demand")) is None:
        return None
    where = ", ".join(str(row[name]) for name in ("cloud", "region", "machine") if row.get(name))
    return Price(float(usd), job.run.spot, where, str(table.get("looked_up", "")))


def row_of(job: JobSpec, *, machine: Accelerator, table: dict[str, Any]) -> dict[str, Any] | None:
    """Of the cloud that the job names; of the first that has the device where it names none."""
    flavor = job.run.kubernetes.flavor if job.run.kubernetes else "generic"
    clouds = {name: cloud for name, cloud in table.items() if isinstance(cloud, dict)}
    named = flavor.partition("-")[0]
    known = (machine.name, SAME.get(machine.name or ""))
    for name, cloud in clouds.items():
        if named not in {name, "generic"}:
            continue
        for device in known:
            if device and (row := cloud.get("devices", {}).get(device)):
                return {"cloud": cloud.get("title", name), **row}
    return None


def chips_of(machine: Accelerator, *, nodes: int, slices: int) -> int:
    """What is paid for: GPUs, or TPU chips."""
    if machine.kind == "tpu":
        return machine.chips_per_vm * machine.hosts * slices
    return machine.devices * nodes


def read_prices(path: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads((path or TABLE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingError("there is no such file of prices.", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        told = f"is no file of prices in TOML: {error}."
        raise UsageError(told, where=str(path), next_step=f"{TABLE.name} beside sdjob/plan/prices.py shows the form.") from error

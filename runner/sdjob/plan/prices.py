"""What an hour costs: a dated table, and before it the user's own. A device that no source prices is left out, never guessed."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sdjob.core.errors import MissingError, UsageError
from sdjob.spec.hardware import Accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.nvidia import SAME

TABLE = Path(__file__).with_name("prices.toml")
FORM = f"{TABLE.name} beside sdjob/plan/prices.py shows the form."
DATE = "looked_up"


@dataclass(frozen=True)
class Row:
    """US dollars an hour of one GPU or TPU chip in one cloud."""

    cloud: str
    """As `run.kubernetes.flavor` begins."""
    device: str
    on_demand: float | None
    spot: float | None
    where: str
    looked_up: str


@dataclass(frozen=True)
class Price:
    """US dollars an hour, of one GPU or TPU chip."""

    usd: float
    spot: bool
    where: str
    looked_up: str

    def of_hours(self, hours: float, *, devices: int) -> float:
        return self.usd * hours * devices


def price_of(job: JobSpec, *, machine: Accelerator, rows: list[Row]) -> Price | None:
    """Of the cloud that the job names, of any where it names none; None where the table does not have it."""
    flavor = job.run.kubernetes.flavor if job.run.kubernetes else "generic"
    named = flavor.partition("-")[0]
    devices = {machine.name, SAME.get(machine.name or "")} - {None}
    for row in rows:
        usd = row.spot if job.run.spot else row.on_demand
        if row.device in devices and named in {row.cloud, "generic"} and usd is not None:
            return Price(usd, job.run.spot, row.where, row.looked_up)
    return None


def chips_of(machine: Accelerator, *, nodes: int, slices: int) -> int:
    """What is paid for: GPUs, or TPU chips."""
    if machine.kind == "tpu":
        return machine.chips_per_vm * machine.hosts * slices
    return machine.devices * nodes


def read_prices(own: Path | None) -> list[Row]:
    """The rows of `own` stand before those of the table."""
    return [row for path in (own, TABLE) if path is not None for row in rows_of(path)]


def rows_of(path: Path) -> Iterator[Row]:
    table = read_table(path)
    for cloud, content in table.items():
        if cloud == DATE:
            continue
        devices = part_of(content, "devices", where=f"{path}: {cloud}")
        for device, row in devices.items():
            yield row_of(
                row, cloud=cloud, device=device, title=content.get("title", cloud), date=str(table.get(DATE, "")), path=path
            )


def row_of(row: Any, *, cloud: str, device: str, title: str, date: str, path: Path) -> Row:
    where = f"{path}: {cloud}.devices.{device}"
    told = part_of({device: row}, device, where=where)
    usd = {name: dollars(told.get(name), where=f"{where}.{name}") for name in ("on_demand", "spot")}
    if usd["on_demand"] is usd["spot"] is None:
        raise UsageError("has neither on_demand nor spot.", where=where, next_step=FORM)
    place = ", ".join(str(text) for text in (title, told.get("region"), told.get("machine")) if text)
    return Row(cloud, device, usd["on_demand"], usd["spot"], place, date)


def dollars(value: Any, *, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UsageError(f"must be US dollars an hour, not {value!r}.", where=where, next_step=FORM)
    return float(value)


def part_of(content: Any, name: str, *, where: str) -> dict[str, Any]:
    part = cast("dict[str, Any]", content).get(name) if isinstance(content, dict) else None
    if not isinstance(part, dict):
        raise UsageError(f"has no table '{name}'.", where=where, next_step=FORM)
    return cast("dict[str, Any]", part)


def read_table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingError("there is no such file of prices.", where=str(path)) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}.", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is no TOML: {error}.", where=str(path), next_step=FORM) from error

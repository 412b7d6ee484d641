"""What an hour of a run's machines costs, where the job file that it stored tells which they are. Pure, but for plan's table."""

from sdjob.core.errors import SdjobError
from sdjob.plan.prices import chips_of, price_of, read_prices
from sdjob.report.overview import Price
from sdjob.spec.hardware import parse_accelerator
from sdjob.spec.load import job_from_text


def price_of_job(text: str) -> Price | None:
    """All its machines together, by the table that `sdjob plan` reckons with; None where that has no price of them, or where
    the job file is of another version."""
    try:
        job = job_from_text(text, source="job.yaml", environment={})
    except SdjobError:
        return None
    machine = parse_accelerator(job.run.accelerator)
    found = price_of(job, machine=machine, rows=read_prices(None))
    if found is None:
        return None
    devices = chips_of(machine, nodes=job.run.nodes, slices=job.run.slices)
    source = f"{found.where}{', spot' if found.spot else ''}, looked up {found.looked_up}"
    return Price(round(found.of_hours(1.0, devices=devices), 6), source)

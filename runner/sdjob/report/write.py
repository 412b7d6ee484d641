"""`sdjob report`: from a place to a file."""

import tempfile
from pathlib import Path

from sdjob.core.clock import Clock
from sdjob.core.errors import UsageError
from sdjob.core.log import Log
from sdjob.report.gather import gather
from sdjob.report.money import price_of_job
from sdjob.report.overview import Price
from sdjob.report.page import page
from sdjob.report.pictures import album
from sdjob.store.base import ObjectStore, scratch_errors


def write_report(store: ObjectStore, *, out: Path, price: Price | None, clock: Clock, log: Log) -> int:
    """The page's size in bytes. A page that was there is replaced at once, never torn. Only reads the run's place.

    price: None means that of the job's machines, where it is known.
    """
    if out.is_dir():
        raise UsageError("is a folder, not a file to write.", where=str(out), next_step="Name a file, such as report.html.")
    run = gather(store, clock=clock, log=log)
    text = page(run, album=album(store, pictures=run.pictures), price=price or price_of_job(run.job_text), secrets=log.secrets)
    data = text.encode("utf-8", errors="replace")
    with scratch_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            file.write(data)
        path = Path(file.name)
        path.chmod(0o644)
        path.replace(out)
    return len(data)

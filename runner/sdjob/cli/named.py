"""A job by its name, or by its file, which also says where its ledger lies."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdjob.spec.job import JobSpec


@dataclass(frozen=True)
class Named:
    name: str
    job: "JobSpec | None" = None

    @property
    def namespace(self) -> str | None:
        cluster = self.job.run.kubernetes if self.job else None
        return cluster.namespace if cluster else None


def named(text: str) -> Named:
    """A file where there is one, or where it is spelled like one."""
    if not Path(text).is_file() and Path(text).suffix not in {".yaml", ".yml"}:
        return Named(text)
    from sdjob.spec.load import load_job

    job = load_job(Path(text), environment=os.environ)
    return Named(job.name, job)

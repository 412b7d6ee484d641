"""What a valid job may ask for that this version cannot do yet: each is refused by name, nothing is ignored.

A release that learns one of these takes its lines out here.
"""

from collections.abc import Iterator

from sdjob.spec.job import JobSpec


def unsupported(job: JobSpec) -> list[str]:
    """One sentence for each field that `run` refuses; empty where it can do the whole job."""
    return list(machines(job))


def not_yet(field: str, *, what: str, instead: str) -> str:
    return f"{field}: this version cannot {what} yet; {instead}."


def machines(job: JobSpec) -> Iterator[str]:
    if job.run.slices > 1:
        yield not_yet("run.slices", what="train on several TPU slices", instead="set 1; one slice may have several machines")

"""What a valid job may ask for that this version cannot do yet: each is refused by name, nothing is ignored.

A release that learns one of these takes its lines out here.
"""

from collections.abc import Iterator

from sdjob.spec.job import JobSpec


def unsupported(job: JobSpec) -> list[str]:
    """One sentence for each field that `run` refuses; empty where it can do the whole job."""
    checks = (data, machines)
    return [sentence for check in checks for sentence in check(job)]


def not_yet(field: str, *, what: str, instead: str) -> str:
    return f"{field}: this version cannot {what} yet; {instead}."


def data(job: JobSpec) -> Iterator[str]:
    if job.data.held_out is not None:
        yield not_yet("data.held_out", what="compute a validation loss", instead="leave it out")


def machines(job: JobSpec) -> Iterator[str]:
    if job.run.slices > 1:
        yield not_yet("run.slices", what="train on several TPU slices", instead="set 1; one slice may have several machines")

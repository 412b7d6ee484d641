from collections.abc import Iterator
from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding


def findings_about(job: JobSpec) -> Iterator[Finding]:
    return iter(())

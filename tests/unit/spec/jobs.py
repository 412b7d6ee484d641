"""Jobs for the tests of this folder."""

from collections.abc import Mapping, Sequence

from sdjob.spec.job import JobSpec
from sdjob.spec.load import job_from_text
from sdjob.spec.problems import JobFileError

SMALLEST = """\
apiVersion: sdjob/v1
name: emoji
model: {source: models/base}
data: {source: pictures}
train: {method: lora, steps: 100}
"""


def job(*overrides: str, text: str = SMALLEST, environment: Mapping[str, str] | None = None) -> JobSpec:
    return job_from_text(text, source="job.yaml", overrides=overrides, environment=environment or {})


def problems(*overrides: str, text: str = SMALLEST, environment: Mapping[str, str] | None = None) -> Sequence[str]:
    """The lines that are told; empty where the job is right."""
    try:
        job(*overrides, text=text, environment=environment)
    except JobFileError as error:
        return str(error).splitlines()
    return []

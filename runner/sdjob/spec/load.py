"""A job file to a JobSpec, or every mistake in it at once; and a JobSpec back to text."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from sdjob.core.errors import DeniedError, MissingError, UsageError
from sdjob.spec.complete import completed
from sdjob.spec.document import Document, decoded, parse_document
from sdjob.spec.job import JobSpec
from sdjob.spec.mend import Mended, lies_within, mended
from sdjob.spec.overrides import apply_override
from sdjob.spec.problems import FieldPath, Finding, JobFileError, Problem, split_path
from sdjob.spec.scalars import plain_scalar
from sdjob.spec.sense.pictures import OF_ONE_SOURCE
from sdjob.spec.sense.rules import findings_about
from sdjob.spec.variables import fill_in, find_secrets


def load_job(path: Path, *, overrides: Sequence[str] = (), environment: Mapping[str, str]) -> JobSpec:
    """The job of a file, complete; JobFileError with every problem, MissingError where there is no file."""
    return job_from_text(
        decoded(content_of(path), source=str(path)), source=str(path), overrides=overrides, environment=environment
    )


def job_from_text(text: str, *, source: str, overrides: Sequence[str] = (), environment: Mapping[str, str]) -> JobSpec:
    document = parse_document(text, source=source)
    for override in overrides:
        apply_override(document, text=override)
    find_secrets(document)
    fill_in(document, environment=environment)
    return checked(document)


def parse_job(data: dict[str, Any]) -> JobSpec:
    """A resolved job that was stored as JSON: its shape is checked, its sense was."""
    result = mended(data)
    if result.findings:
        document = Document("stored job")
        raise JobFileError([problem_of(finding, document=document) for finding in result.findings])
    return completed(result.job)


def content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError("there is no such file; `sdjob init PATH` writes one.", where=str(path)) from error
    except IsADirectoryError as error:
        raise UsageError("is a folder, not a job file.", where=str(path)) from error
    except PermissionError as error:
        raise DeniedError("this user may not read the file.", where=str(path)) from error


def checked(document: Document) -> JobSpec:
    data: Any = document.data
    if not isinstance(data, dict):
        found = "is empty" if data is None else "is not a mapping of fields"
        document.problems.append(Problem(document.source, 1, "", f"the file {found}; `sdjob init PATH` writes one to start from"))
        raise JobFileError(document.problems)
    known_bad = frozenset(split_path(problem.path) for problem in document.problems if problem.path)
    result = mended(cast("dict[str, Any]", data))
    findings = [finding for finding in result.findings if finding.path not in known_bad]
    findings += sensible(result, known_bad=known_bad)
    problems = [*document.problems, *(problem_of(finding, document=document) for finding in findings)]
    if problems:
        raise JobFileError(sorted(problems, key=reading_order))
    return completed(result.job)


def sensible(result: Mended, *, known_bad: frozenset[FieldPath]) -> list[Finding]:
    """What the rules find among the fields that are right by themselves."""
    broken = result.broken | known_bad
    return [
        finding
        for finding in findings_about(result.job)
        if not any(lies_within(path, broken=broken) for path in (finding.path, *finding.reads))
    ]


def problem_of(finding: Finding, *, document: Document) -> Problem:
    return document.problem(finding.path, what=finding.what, allowed=finding.allowed, nearest=finding.nearest)


def reading_order(problem: Problem) -> tuple[bool, int, str]:
    """By line; what came from the command line last."""
    return (problem.source.startswith("--set "), problem.line or 0, problem.path)


def resolved(job: JobSpec) -> dict[str, Any]:
    """All fields with their defaults, without the LoRA block of a job that trains none, and without the source of one that has
    several."""
    unused = {
        "train": {"lora"} if job.train.method == "full" else set[str](),
        "data": set(OF_ONE_SOURCE if job.data.sources else ()),
    }
    return job.model_dump(mode="json", exclude=cast("Any", unused))


def resolved_json(job: JobSpec) -> str:
    """Equal text for equal jobs."""
    return json.dumps(resolved(job), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def resolved_yaml(job: JobSpec) -> str:
    """The job as a job file again."""
    return yaml.dump(resolved(job), Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=120)


class PlainDumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would read as something else than text; PyYAML quotes by the rules of 1.1 alone."""


def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    quoted = not isinstance(plain_scalar(text), str)
    return cast("Any", dumper).represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)


PlainDumper.add_representer(str, represent_text)

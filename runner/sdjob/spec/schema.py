"""The JSON Schema of the job file. Pure."""

from typing import Any, cast

from sdjob.spec.job import JobSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTIFIER = "urn:sdjob:job:v1"


def job_schema() -> dict[str, Any]:
    """What an editor needs to complete and check a job file; combinations of fields are `sdjob validate`'s."""
    schema = without_titles(JobSpec.model_json_schema())
    return {"$schema": DIALECT, "$id": IDENTIFIER, "title": "sdjob job file", **schema}


def without_titles(value: Any) -> Any:
    """pydantic repeats every field's name as its title."""
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        return {key: without_titles(inner) for key, inner in mapping.items() if not (key == "title" and isinstance(inner, str))}
    if isinstance(value, list):
        return [without_titles(inner) for inner in cast("list[Any]", value)]
    return value

"""The JSON Schema of the job file. Pure."""

from typing import Any, cast

from sdjob.spec.job import JobSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTIFIER = "urn:sdjob:job:v1"


def job_schema() -> dict[str, Any]:
    """What an editor needs to complete and check a job file; combinations of fields are `sdjob validate`'s."""
    schema = without_titles(JobSpec.model_json_schema())
    for part in (schema, *schema["$defs"].values()):
        describe_references(part["properties"], parts=schema["$defs"])
    return {"$schema": DIALECT, "$id": IDENTIFIER, "title": "sdjob job file", **schema}


def without_titles(value: Any) -> Any:
    """pydantic repeats every field's name as its title."""
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        return {key: without_titles(inner) for key, inner in mapping.items() if not (key == "title" and isinstance(inner, str))}
    if isinstance(value, list):
        return [without_titles(inner) for inner in cast("list[Any]", value)]
    return value


def describe_references(fields: dict[str, dict[str, Any]], *, parts: dict[str, dict[str, Any]]) -> None:
    """pydantic leaves out a field's description where the section's is the same; editors want it at the field."""
    for field in fields.values():
        if "$ref" in field and "description" not in field:
            field["description"] = parts[field["$ref"].removeprefix("#/$defs/")]["description"]

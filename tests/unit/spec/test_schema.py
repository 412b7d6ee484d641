from collections.abc import Iterator
from typing import Any

from pydantic_core import core_schema

from sdjob.spec.job import JobSpec
from sdjob.spec.part import Part
from sdjob.spec.schema import job_schema
from sdjob.spec.translate import CONSEQUENCES, SENTENCES, field_paths, part_in


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for inner in schema.values():
            yield from objects(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from objects(inner)


def test_every_field_is_described_and_none_may_be_added():
    found = list(objects(job_schema()))
    assert len(found) >= 15
    for schema in found:
        assert schema["additionalProperties"] is False
        for name, field in schema["properties"].items():
            assert field.get("description"), name


def test_resolution_takes_its_shorthand():
    choices = job_schema()["$defs"]["DataSpec"]["properties"]["resolution"]["anyOf"]
    assert [choice.get("type", "object") for choice in choices] == ["integer", "object"]


def test_required_fields():
    assert job_schema()["required"] == ["apiVersion", "name", "model", "data", "train"]
    assert job_schema()["$defs"]["TrainSpec"]["required"] == ["method"]


def test_every_part_has_a_text():
    for path in field_paths(JobSpec):
        part: type[Part] = JobSpec
        for name in path:
            inner = part_in(part.model_fields[name].annotation)
            if inner:
                part = inner
        assert part.__doc__


def test_every_kind_of_mistake_that_pydantic_may_find_has_a_sentence():
    kinds = set(kinds_in(JobSpec.__pydantic_core_schema__))
    assert kinds - set(SENTENCES) - CONSEQUENCES == set()


RAISED_BY = {
    "int": {"int_type", "int_parsing_size"},
    "float": {"float_type", "finite_number"},
    "bool": {"bool_type"},
    "str": {"string_type"},
    "tuple": {"tuple_type"},
    "dict": {"dict_type"},
    "model": {"model_type"},
    "model-fields": {"extra_forbidden", "missing"},
    "literal": {"literal_error"},
    "nullable": set[str](),
    "default": {"default_factory_not_called"},
    "definitions": set[str](),
    "definition-ref": set[str](),
    "function-before": set[str](),
    "model-field": set[str](),
}
LIMITS = {
    "ge": "greater_than_equal",
    "gt": "greater_than",
    "le": "less_than_equal",
    "lt": "less_than",
    "multiple_of": "multiple_of",
    "pattern": "string_pattern_mismatch",
}


def kinds_in(schema: core_schema.CoreSchema | dict[str, Any]) -> Iterator[str]:
    """The errors that a pydantic schema may raise."""
    pending: list[Any] = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            kind = value.get("type")
            if isinstance(kind, str):
                yield from RAISED_BY[kind]
                yield from (LIMITS[name] for name in LIMITS if name in value)
                if kind in {"str", "tuple"} and ("min_length" in value or "max_length" in value):
                    prefix = "string_" if kind == "str" else ""
                    yield from (f"{prefix}too_short", f"{prefix}too_long")
            pending += [
                inner
                for key, inner in value.items()
                if key not in {"metadata", "serialization", "config", "default", "json_schema_input_schema", "function"}
            ]
        elif isinstance(value, list | tuple):
            pending += value

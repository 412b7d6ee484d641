"""pydantic's findings as plain sentences about a job file."""

from collections.abc import Callable, Iterable
from typing import Any, cast, get_args

from pydantic_core import ErrorDetails

from sdjob.spec.job import JobSpec
from sdjob.spec.part import Part
from sdjob.spec.problems import FieldPath, Finding, dotted, listed, nearest_name

LONGEST_SHOWN = 60
Context = dict[str, Any]
Sentence = Callable[[Context, str], str]

SENTENCES: dict[str, Sentence] = {
    "int_type": lambda _, given: f"must be a whole number, not {given}",
    "int_parsing_size": lambda _, given: f"{given} is too large a number",
    "float_type": lambda _, given: f"must be a number, not {given}",
    "finite_number": lambda _, given: f"must be a finite number, not {given}",
    "bool_type": lambda _, given: f"must be true or false, not {given}",
    "string_type": lambda _, given: f"must be text, not {given}",
    "string_too_short": lambda _, _given: "must not be empty",
    "string_too_long": lambda context, _: f"must be at most {context['max_length']} letters long",
    "tuple_type": lambda _, given: f"must be a list, not {given}",
    "too_long": lambda context, _: f"must have {context['max_length']} items, not more",
    "too_short": lambda context, _: f"must have at least {context['min_length']} item(s)",
    "dict_type": lambda _, given: f"must be a mapping, not {given}",
    "model_type": lambda _, given: f"must be a mapping of fields, not {given}",
    "literal_error": lambda _, given: f"{given.removeprefix('the text ')} is not allowed",
    "greater_than": lambda context, given: f"must be above {context['gt']:g}, not {given}",
    "greater_than_equal": lambda context, given: f"must be at least {context['ge']:g}, not {given}",
    "less_than": lambda context, given: f"must be below {context['lt']:g}, not {given}",
    "less_than_equal": lambda context, given: f"must be at most {context['le']:g}, not {given}",
    "multiple_of": lambda context, given: f"must be a multiple of {context['multiple_of']}, not {given}",
    "string_pattern_mismatch": lambda _, given: f"{given.removeprefix('the text ')} is not allowed",
    "extra_forbidden": lambda _context, _given: "there is no such field",
    "missing": lambda _context, _given: "is required",
}
# Follows from another problem, which is reported itself.
CONSEQUENCES = {"default_factory_not_called"}


def findings_of(errors: Iterable[ErrorDetails], *, data: Any) -> list[Finding]:
    """One finding for each field; those that a misspelled neighbour explains are left out."""
    found: dict[FieldPath, Finding] = {}
    for error in errors:
        if error["type"] not in CONSEQUENCES:
            finding = finding_of(error, data=data)
            found.setdefault(finding.path, finding)
    meant = {(*finding.path[:-1], finding.nearest) for finding in found.values() if finding.nearest}
    return [finding for path, finding in found.items() if path not in meant]


def finding_of(error: ErrorDetails, *, data: Any) -> Finding:
    kind = error["type"]
    path = within(error["loc"], data=data)
    given = shown(value_at(data, path=path))
    if kind == "missing" and path and isinstance(path[-1], int):
        return Finding(path[:-1], f"must have more items: item {path[-1] + 1} is missing")
    what = SENTENCES[kind](error.get("ctx", {}), given)
    allowed, nearest = advice(kind, path=path, value=value_at(data, path=path), context=error.get("ctx", {}))
    return Finding(path, what, allowed, nearest)


def advice(kind: str, *, path: FieldPath, value: Any, context: Context) -> tuple[str, str | None]:
    """What is allowed instead, and the name that was probably meant."""
    if kind == "extra_forbidden":
        names = list(part_at(path[:-1]).model_fields)
        return listed(names), meant_field(str(path[-1]), among=names)
    if kind == "literal_error":
        names = choices(context)
        return listed(names), nearest_name(str(value), among=names) if len(names) > 1 else None
    if kind == "missing":
        return description(path), None
    if kind == "string_pattern_mismatch":
        return f"allowed: {description(path)}", None
    if kind == "model_type":
        return listed(part_at(path).model_fields), None
    return "", None


def choices(context: Context) -> list[str]:
    """The values of a Literal, from pydantic's "'auto', True or False"."""
    names = [name.strip("'") for name in str(context["expected"]).replace(" or ", ", ").split(", ")]
    return [name.lower() if name in {"True", "False"} else name for name in names]


def within(location: tuple[int | str, ...], *, data: Any) -> FieldPath:
    """The location up to what the file has: `resolution: 100` is wrong at data.resolution, not at its width."""
    for depth, step in enumerate(location):
        if not isinstance(data, list if isinstance(step, int) else dict):
            return location[:depth]
        data = value_at(data, path=(step,))
    return location


def value_at(data: Any, *, path: FieldPath) -> Any:
    for step in path:
        if isinstance(data, dict):
            data = cast("dict[str | int, Any]", data).get(step)
        elif isinstance(data, list) and isinstance(step, int):
            items = cast("list[Any]", data)
            data = items[step] if step < len(items) else None
        else:
            return None
    return data


def shown(value: Any) -> str:
    """A value as the file would spell it, shortened."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return str(value).lower()
        case str():
            text = value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "..."
            return f"the text '{text}'"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)


def part_at(path: FieldPath) -> type[Part]:
    """The model of the section at a path."""
    part: type[Part] = JobSpec
    for step in path:
        if isinstance(step, str):
            part = part_in(part.model_fields[step].annotation) or part
    return part


def part_in(annotation: Any) -> type[Part] | None:
    """The model within `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next((part for inner in get_args(annotation) if (part := part_in(inner))), None)


def description(path: FieldPath) -> str:
    """The field's own text, as a clause."""
    text = part_at(path[:-1]).model_fields[str(path[-1])].description or ""
    return decapitalised(text.rstrip("."))


def decapitalised(text: str) -> str:
    """`A DNS label` as it stands within a sentence."""
    return text[:1].lower() + text[1:]


def meant_field(name: str, *, among: list[str]) -> str | None:
    """A slip of the finger first, then a field of another section, then anything similar."""
    return nearest_name(name, among=among, cutoff=0.8) or elsewhere(name) or nearest_name(name, among=among)


def elsewhere(name: str) -> str | None:
    """The full path of a field of this name in another section, where there is exactly one."""
    paths = [path for path in field_paths(JobSpec) if path[-1] == name]
    return dotted(paths[0]) if len(paths) == 1 else None


def field_paths(part: type[Part]) -> Iterable[FieldPath]:
    for name, field in part.model_fields.items():
        yield (name,)
        inner = part_in(field.annotation)
        if inner:
            yield from ((name, *path) for path in field_paths(inner))

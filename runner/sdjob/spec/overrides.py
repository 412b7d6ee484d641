"""`--set path=value`: fields of the job file from the command line."""

from typing import Any, cast

from sdjob.spec.document import Document, parse_document
from sdjob.spec.problems import FieldPath, JobFileError, Problem, dotted, split_path
from sdjob.spec.secrecy import looks_secret


def apply_override(document: Document, *, text: str) -> None:
    """Puts the value into the document's data, making the sections on its way; what is wrong goes to `.problems`."""
    name, separator, value = text.partition("=")
    path = split_path(name)
    label = f"--set {name}=***" if looks_secret(value) else f"--set {text}"
    if not separator or not all(str(step) for step in path):
        document.problems.append(Problem(label, None, "", "is not path=value, as in --set train.lora.rank=8"))
        return
    try:
        given = parse_document(value, source=label)
    except JobFileError as error:
        document.problems += [Problem(label, None, dotted(path), problem.what) for problem in error.problems]
        return
    document.problems += [Problem(label, None, dotted(path), problem.what) for problem in given.problems]
    blocked = put(document, path=path, value=given.data)
    if blocked is not None:
        document.problems.append(Problem(label, None, dotted(path), blocked))
        return
    document.lines = {field: line for field, line in document.lines.items() if field[: len(path)] != path}
    document.overrides[path] = label


def put(document: Document, *, path: FieldPath, value: Any) -> str | None:
    """Sets a value in nested data; a sentence where there is no way to it."""
    if document.data is None:
        document.data = {}
    holder: Any = document.data
    for depth, step in enumerate(path):
        last = depth == len(path) - 1
        fresh: Any = value if last else ([] if isinstance(path[depth + 1], int) else {})
        blocked = enter(holder, step=step, fresh=fresh, overwrite=last, where=dotted(path[:depth]))
        if blocked:
            return blocked
        holder = holder[step]
    return None


def enter(holder: Any, *, step: str | int, fresh: Any, overwrite: bool, where: str) -> str | None:
    """Makes sure that `holder[step]` exists; `fresh` stands there where nothing did, or where it is to be overwritten."""
    if isinstance(holder, list):
        items = cast("list[Any]", holder)
        if not isinstance(step, int) or step > len(items):
            return f"{where} is a list of {len(items)}; {len(items)} would add to it, '{step}' is too far"
        if step == len(items):
            items.append(fresh)
        elif overwrite:
            items[step] = fresh
        return None
    if not isinstance(holder, dict):
        return f"{where or 'the file'} is not a mapping, so it has no '{step}'"
    mapping = cast("dict[str | int, Any]", holder)
    if overwrite or mapping.get(step) is None:
        mapping[step] = fresh
    return None

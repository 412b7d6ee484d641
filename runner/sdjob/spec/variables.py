"""`${VAR}` in places and names, filled in from the environment; and the look for secrets, which belong there."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from sdjob.core.log import SECRET_NAME
from sdjob.spec.document import Document
from sdjob.spec.problems import FieldPath
from sdjob.spec.secrecy import secret_kind

# Fields that are filled in; a number stands for any item of a list.
FILLED_IN: tuple[FieldPath, ...] = (
    ("name",),
    ("model", "source"),
    ("model", "vae"),
    ("data", "source"),
    ("data", "prior", "source"),
    ("train", "init_from"),
    ("checkpoint", "to"),
    ("publish", 0, "to"),
    ("run", "scratch"),
    ("run", "cache"),
)
VARIABLE = re.compile(r"\$\{([^}]*)(\}?)")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def texts(value: Any, *, path: FieldPath = ()) -> Iterator[tuple[FieldPath, str]]:
    """Every string in nested data."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield from texts(item, path=(*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from texts(item, path=(*path, index))


def find_secrets(document: Document) -> None:
    """Secrets are taken out of the data too, so that no later message repeats them."""
    for path, text in list(texts(document.data)):
        kind = secret_kind(text)
        if kind:
            document.add(
                path,
                what=f"this looks like {kind}; a job file holds no secrets",
                allowed="put it into the environment (HF_TOKEN, AWS_ACCESS_KEY_ID, ...) or a mounted secret",
            )
            replace(document.data, path=path, value="")


def fill_in(document: Document, *, environment: Mapping[str, str]) -> None:
    for path, text in list(texts(document.data)):
        if tuple(0 if isinstance(step, int) else step for step in path) in FILLED_IN:
            replace(document.data, path=path, value=filled(text, path=path, document=document, environment=environment))


def filled(text: str, *, path: FieldPath, document: Document, environment: Mapping[str, str]) -> str:
    def value_of(match: re.Match[str]) -> str:
        name, closed = match.groups()
        if not closed or not NAME.fullmatch(name):
            document.add(
                path, what=f"'{match[0]}' is no variable", allowed="allowed: ${NAME} with letters, digits and underscores"
            )
            return ""
        if SECRET_NAME.search(name):
            document.add(
                path,
                what=f"the variable {name} looks like a secret by its name, and a place is stored with the run",
                allowed="secrets reach the stores through the environment alone (AWS_SECRET_ACCESS_KEY, HF_TOKEN, ...)",
            )
            return ""
        if name not in environment:
            document.add(path, what=f"the environment variable {name} is not set", allowed="set it, or write the value itself")
            return ""
        return environment[name]

    return VARIABLE.sub(value_of, text)


def replace(data: Any, *, path: FieldPath, value: str) -> None:
    for step in path[:-1]:
        data = data[step]
    if path:
        data[path[-1]] = value

"""The text of a job file as plain data, with the line of every field."""

from dataclasses import dataclass, field
from typing import Any

import yaml

from sdjob.spec.problems import FieldPath, JobFileError, Problem, dotted
from sdjob.spec.scalars import plain_scalar
from sdjob.spec.yaml_text import compose

LARGEST_BYTES = 256 * 1024  # a ConfigMap, which carries the job to a cluster, holds 1 MiB with all else
MOST_VALUES = 20_000  # after aliases are unfolded


@dataclass
class Document:
    """Plain data, and where it stood."""

    source: str
    data: Any = None
    lines: dict[FieldPath, int] = field(default_factory=dict[FieldPath, int])
    overrides: dict[FieldPath, str] = field(default_factory=dict[FieldPath, str])
    """Fields that came from the command line, and the arguments that brought them."""
    problems: list[Problem] = field(default_factory=list[Problem])
    num_values: int = 0

    def problem(self, path: FieldPath, *, what: str, allowed: str = "", nearest: str | None = None) -> Problem:
        """A problem at a field, or at the nearest field around it that the text has."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.overrides:
                return Problem(self.overrides[path[:length]], None, dotted(path), what, allowed, nearest)
            if path[:length] in self.lines:
                return Problem(self.source, self.lines[path[:length]], dotted(path), what, allowed, nearest)
        return Problem(self.source, 1, dotted(path), what, allowed, nearest)

    def add(self, path: FieldPath, *, what: str, allowed: str = "") -> None:
        self.problems.append(self.problem(path, what=what, allowed=allowed))


def decoded(content: bytes, *, source: str) -> str:
    """The text of a file; JobFileError where it is not UTF-8 or far too large."""
    if len(content) > LARGEST_BYTES:
        raise unreadable(source, line=1, what=f"the file has {len(content)} bytes; a job file has at most {LARGEST_BYTES}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise unreadable(source, line=line, what=f"the byte 0x{content[error.start]:02x} is not UTF-8 text") from error


def unreadable(source: str, *, line: int | None, what: str) -> JobFileError:
    return JobFileError([Problem(source, line, "", what)])


def parse_document(text: str, *, source: str) -> Document:
    """Plain data of a job file; JobFileError where the text is not YAML. What else is wrong stands in `.problems`."""
    document = Document(source)
    try:
        node, tags = compose(text)
    except yaml.YAMLError as error:
        raise syntax_error(error, source=source) from error
    document.problems += [
        Problem(source, line, "", f"the tag {tag} is not allowed", "allowed: plain values without tags") for line, tag in tags
    ]
    if node is not None:
        document.data = read_node(node, document=document, path=())
    return document


def syntax_error(error: yaml.YAMLError, *, source: str) -> JobFileError:
    if not isinstance(error, yaml.MarkedYAMLError):
        reason = getattr(error, "reason", None)
        return unreadable(source, line=None, what=f"this is not YAML: {reason or error}")
    mark = error.problem_mark or error.context_mark
    what = ", ".join(part for part in (error.context, error.problem) if part)
    if "'\\t'" in what:
        what = "a tab stands where YAML wants spaces"
    if "expected a single document" in what:
        what = "a second document begins here; a job file holds one"
    return unreadable(source, line=mark.line + 1 if mark else None, what=f"this is not YAML: {what}")


def read_node(node: yaml.Node, *, document: Document, path: FieldPath) -> Any:
    """A node's value; remembers the lines of the fields below it."""
    document.num_values += 1
    if document.num_values > MOST_VALUES or len(path) > 100:
        raise unreadable(
            document.source,
            line=node.start_mark.line + 1,
            what=f"the aliases (*name) unfold to more than {MOST_VALUES} values, or into themselves",
        )
    if isinstance(node, yaml.MappingNode):
        return read_mapping(node, document=document, path=path)
    if isinstance(node, yaml.SequenceNode):
        return read_sequence(node, document=document, path=path)
    return read_scalar(node, document=document, path=path)


def read_mapping(node: yaml.MappingNode, *, document: Document, path: FieldPath) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(
                Problem(document.source, line, dotted(path), "a key must be a plain word, not a list or mapping")
            )
            continue
        key = str(key_node.value)
        if key in mapping:
            first = document.lines[(*path, key)]
            document.problems.append(
                Problem(document.source, line, dotted((*path, key)), f"is given a second time; the first is on line {first}")
            )
            continue
        document.lines[(*path, key)] = line
        mapping[key] = read_node(value_node, document=document, path=(*path, key))
    return mapping


def read_sequence(node: yaml.SequenceNode, *, document: Document, path: FieldPath) -> list[Any]:
    items: list[Any] = []
    for index, item in enumerate(node.value):
        document.lines[(*path, index)] = item.start_mark.line + 1
        items.append(read_node(item, document=document, path=(*path, index)))
    return items


def read_scalar(node: yaml.Node, *, document: Document, path: FieldPath) -> Any:
    text = str(node.value)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        document.add(path, what="holds half of a surrogate pair, which is no letter")
        return ""
    return plain_scalar(text) if getattr(node, "style", None) is None else text

"""YAML text to nodes: PyYAML's composer, with limits, and without the tags that could make it build anything but data."""

from typing import Any, cast

import yaml

DEEPEST = 40


class TooDeepError(yaml.YAMLError):
    """Nesting that no job file has, and that would exhaust the interpreter's stack."""


class NodeLoader(yaml.SafeLoader):
    """Composes nodes only; values are read from them elsewhere, by the rules of YAML 1.2."""

    # No implicit tags: what a plain scalar means is decided by scalars.py.
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML declares it so

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.tag_lines: list[tuple[int, str]] = []
        """Line and name of every tag in the text."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event = cast("yaml.Event", self.peek_event())  # pyright: ignore[reportUnknownMemberType]  PyYAML's stubs leave it open
        tag = cast("str | None", getattr(event, "tag", None))
        if tag is not None:
            self.tag_lines.append((event.start_mark.line + 1, tag))
        self.depth += 1
        if self.depth > DEEPEST:
            raise TooDeepError(f"the file is nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def compose(text: str) -> tuple[yaml.Node | None, list[tuple[int, str]]]:
    """The one document's node, None where it is empty, and the tags that stand in it; yaml.YAMLError where it cannot be read."""
    loader = NodeLoader(text)
    try:
        return loader.get_single_node(), loader.tag_lines
    except (ValueError, OverflowError) as error:
        # PyYAML hands the numbers of \U escapes and %YAML directives to chr() and int() unchecked.
        raise yaml.YAMLError(f"a number in an escape or a directive is too large ({error})") from error
    finally:
        cast("Any", loader).dispose()

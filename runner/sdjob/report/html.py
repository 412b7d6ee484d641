"""HTML by construction: a text is escaped wherever it goes, since prompts, names and errors are other people's words."""

from collections.abc import Iterable
from html import escape

VOID = {"img", "input", "meta", "rect", "path", "line", "circle"}


class Html(str):
    """Markup, which is not escaped again. Made by `tag` and `joined` alone."""

    __slots__ = ()


Child = str | int | Html | None


def tag(name: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """An element. `class_` is class, `data_step` data-step; None and False leave an attribute out, True gives its name alone."""
    opening = name + "".join(attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{opening}/>") if name in {"rect", "path", "line", "circle"} else Html(f"<{opening}>")
    return Html(f"<{opening}>{joined(children)}</{name}>")


def attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = {"view_box": "viewBox"}.get(key, key.rstrip("_").replace("_", "-"))
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def joined(children: Iterable[Child]) -> Html:
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children if child is not None))


def table(caption: str, *, head: Iterable[Child], rows: Iterable[Iterable[Child]], class_: str | None = None) -> Html:
    """The first cell of a row is its name."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = (tag("tr", *cells(row)) for row in rows)
    parts = (tag("caption", caption), tag("thead", top), tag("tbody", *body))
    return tag("div", tag("table", *parts, class_=class_), class_="scroll", tabindex="0", role="region", aria_label=caption)


def cells(row: Iterable[Child]) -> Iterable[Html]:
    for position, cell in enumerate(row):
        yield tag("td", cell) if position else tag("th", cell, scope="row")

"""Reading of objects as an API server gives them: any part may be absent. Pure."""

from typing import Any, cast

from sdjob.cluster.names import CONTAINER, Manifest


def part(thing: Manifest, *path: str) -> Manifest:
    """A mapping within an object; empty where it is absent or null."""
    for step in path:
        thing = cast("Manifest", thing.get(step) or {})
    return thing


def items(thing: Manifest, *path: str) -> list[Manifest]:
    """A list of mappings within an object."""
    found: Any = part(thing, *path[:-1]).get(path[-1]) or []
    return cast("list[Manifest]", found)


def text(thing: Manifest, *path: str) -> str:
    return str(part(thing, *path[:-1]).get(path[-1]) or "")


def name_of(thing: Manifest) -> str:
    return text(thing, "metadata", "name")


def annotation(thing: Manifest, key: str) -> str:
    return text(thing, "metadata", "annotations", key)


def label(thing: Manifest, key: str) -> str:
    return text(thing, "metadata", "labels", key)


def condition(thing: Manifest, kind: str, *, status: str = "True") -> Manifest | None:
    """A condition of an object's status, where it has this status."""
    found = (one for one in items(thing, "status", "conditions") if one.get("type") == kind and one.get("status") == status)
    return next(found, None)


def container_state(pod: Manifest, state: str) -> Manifest:
    """`waiting`, `running` or `terminated` of sdjob's container; empty where it is in another state."""
    for status in items(pod, "status", "containerStatuses"):
        if status.get("name") == CONTAINER:
            return part(status, "state", state)
    return {}

"""The size at which a picture is trained, and where its window lies where no draw decides that."""

from dataclasses import dataclass

from sdjob.data.crops import Crop, center_crop, scaled_size
from sdjob.data.entries import Entry
from sdjob.spec.data import DataSpec


@dataclass(frozen=True)
class TargetSize:
    width: int
    height: int
    """Pixels."""


def target_size(entry: Entry, *, data: DataSpec) -> TargetSize:  # noqa: ARG001 - what follows from a picture's shape asks here
    return TargetSize(data.resolution.width, data.resolution.height)


def settled_crop(entry: Entry, *, data: DataSpec) -> Crop | None:
    """The window that the picture has at every step; None where it is drawn anew each time."""
    target = target_size(entry, data=data)
    shape = {"width": entry.width, "height": entry.height, "target_width": target.width, "target_height": target.height}
    if data.crop == "random" and scaled_size(**shape) != (target.width, target.height):
        return None
    return center_crop(**shape)

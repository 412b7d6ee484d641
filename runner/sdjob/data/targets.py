"""The size at which a picture is trained, and where its window lies where no draw decides that."""

from sdjob.data.buckets import TargetSize, nearest_size
from sdjob.data.crops import Crop, center_crop, scaled_size
from sdjob.data.entries import Entry
from sdjob.spec.data import DataSpec
from sdjob.spec.sources import prior_source


def target_size(entry: Entry, *, data: DataSpec) -> TargetSize:
    return nearest_size(width=entry.width, height=entry.height, data=data)


def settled_crop(entry: Entry, *, data: DataSpec) -> Crop | None:
    """The window that the picture has at every step; None where it is drawn anew each time, or its batch decides: with buckets
    a prior picture takes the size of those that it stands beside."""
    if data.buckets is not None and data.prior is not None and entry.source == prior_source(data):
        return None
    target = target_size(entry, data=data)
    shape = {"width": entry.width, "height": entry.height, "target_width": target.width, "target_height": target.height}
    if data.crop == "random" and scaled_size(**shape) != (target.width, target.height):
        return None
    return center_crop(**shape)

"""Where a picture's window lies where no draw decides that."""

from sdjob.data.buckets import TargetSize
from sdjob.data.crops import Crop, Integers, center_crop, scaled_size, scaled_sizes
from sdjob.data.entries import Entry
from sdjob.spec.data import DataSpec


def settled_crop(entry: Entry, *, target: TargetSize, data: DataSpec) -> Crop | None:
    """The window that the picture has at every step in this size; None where it is drawn anew each time."""
    shape = {"width": entry.width, "height": entry.height, "target_width": target.width, "target_height": target.height}
    if data.crop == "random" and scaled_size(**shape) != (target.width, target.height):
        return None
    return center_crop(**shape)


def all_settled(widths: Integers, heights: Integers, *, target: TargetSize, data: DataSpec) -> bool:
    """Whether all of these pictures have such a window."""
    if data.crop == "center":
        return True
    across_N, down_N = scaled_sizes(widths, heights, target_width=target.width, target_height=target.height)
    return bool(((across_N == target.width) & (down_N == target.height)).all())

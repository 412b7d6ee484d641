"""How many pictures a job's data has, where that can be told in a moment: by the names in a folder of this machine."""

import os
from pathlib import Path

from sdjob.spec.data import DataSpec
from sdjob.spec.places import parse_place
from sdjob.spec.sources import data_sources

# What the scan of an image folder takes (data/folder.py), by name alone.
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MOST_NAMES = 200_000  # beyond that counting would take longer than a plan may


def num_pictures(data: DataSpec, *, base: Path) -> int | None:
    """Of an epoch, with those that are repeated. None where it cannot be told: elsewhere, in shards or tables, or too many to
    count in a moment."""
    total = 0
    for source in data_sources(data):
        count = num_in(source.source, base=base) if source.role == "train" else 0
        if count is None:
            return None
        total += source.repeats * (count if source.max_samples is None else min(count, source.max_samples))
    return total or None


def num_in(source: str, *, base: Path) -> int | None:
    place = parse_place(source, base=base)
    if place.scheme != "file" or not place.path.is_dir():
        return None
    found = names = 0
    for _, _, files in os.walk(place.path):
        names += len(files)
        found += sum(name.lower().endswith(ENDINGS) for name in files)
        if names > MOST_NAMES:
            return None
    return found

"""What of its data a run trains on: told once, at an attempt's start."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sdjob.core.log import Log
from sdjob.data.buckets import TargetSize, assigned, bucket_sizes, cropped_share, cropped_share_of, num_of_each
from sdjob.data.index import Index
from sdjob.data.roles import Numbers, Roles, num_of_sources, roles_of
from sdjob.ledger.write import LedgerWriter
from sdjob.spec.data import DataSpec
from sdjob.spec.sources import data_sources


@dataclass(frozen=True)
class Fact:
    name: str
    words: str
    fields: dict[str, Any]


def tell_inventory(index: Index, *, data: DataSpec, ledger: LedgerWriter, log: Log) -> None:
    facts = list(inventory(index, data=data))
    if facts:
        told = {fact.name: fact.fields for fact in facts}
        ledger.event("data", **told)
        log.event("data", "; ".join(fact.words for fact in facts), **told)


def inventory(index: Index, *, data: DataSpec) -> Iterator[Fact]:
    roles = roles_of(index, data=data)
    if data.sources or data.prior or data.held_out:
        yield sources(index, roles=roles, data=data)
    if data.buckets is not None:
        yield buckets(index, numbers=roles.train, data=data)


def sources(index: Index, *, roles: Roles, data: DataSpec) -> Fact:
    fields = [source.field for source in data_sources(data)]
    trained = {fields[number]: count for number, count in num_of_sources(index, numbers=roles.train).items()}
    words = [f"{len(roles.train)} pictures an epoch"]
    words += [f"{len(roles.prior)} prior pictures beside them"] if len(roles.prior) else []
    words += [f"{len(roles.held_out)} held out"] if len(roles.held_out) else []
    return Fact("sources", ", ".join(words), {"trained": trained, "prior": len(roles.prior), "held_out": len(roles.held_out)})


def buckets(index: Index, *, numbers: Numbers, data: DataSpec) -> Fact:
    """Beside what `resolution` alone would crop away, which is what buckets are for."""
    widths, heights, sizes = index.widths[numbers], index.heights[numbers], bucket_sizes(data)
    found = assigned(widths, heights, data=data)
    plain = TargetSize(data.resolution.width, data.resolution.height)
    cropped = cropped_share_of(widths, heights, numbers=found, sizes=sizes)
    cropped_plain = cropped_share(widths, heights, target=plain)
    counts = {str(size): count for size, count in num_of_each(found, sizes=sizes).items()}
    words = f"{len(counts)} buckets: crops take {cropped:.1%} of the pixels, where {plain} alone would take {cropped_plain:.1%}"
    return Fact("buckets", words, {"pictures": counts, "cropped": round(cropped, 4), "cropped_plain": round(cropped_plain, 4)})

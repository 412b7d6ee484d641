"""One slot of the log: its kinds, its bytes, its checksum.

claim       an attempt becomes the holder, with an epoch of its own
commit      a snapshot is whole and named
retire      commits that are never restored again; their blobs may go
quarantine  a commit whose bytes were found damaged
done        the run is finished and published
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypedDict, cast

from sdjob.core.errors import SdjobError, UnsoundError

FORMAT = 1
LARGEST_SLOT_BYTES = 2048
LONGEST_TEXT = 120  # characters of a host or an attempt's name, so that a claim always fits into a slot
LONGEST_REASON = 300
PUBLISHED_BYTES = LARGEST_SLOT_BYTES - 600  # what a done slot has left for its list
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class DamagedSlotError(UnsoundError):
    """The bytes are not what a writer wrote there."""


class Stamp(TypedDict):
    """What every slot carries, as the log hands it to whoever drafts one."""

    number: int
    epoch: int
    nonce: str
    time_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """`number` stands in the bytes too, so that two slots with swapped contents are both found out."""

    kind: ClassVar[str]
    number: int
    epoch: int
    nonce: str
    time_s: float
    """Unix time, for people alone: no decision depends on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimSlot(Slot):
    kind = "claim"
    attempt: str
    host: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitSlot(Slot):
    kind = "commit"
    step: int
    manifest: str
    """sha256 of the manifest's bytes, which lie at blob/<epoch>/<manifest>."""
    digest: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RetireSlot(Slot):
    """Slots decide; the steps are for readers, since one step can be committed twice, after a fall-back."""

    kind = "retire"
    slots: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantineSlot(Slot):
    kind = "quarantine"
    slot: int
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DoneSlot(Slot):
    """`published` is a convenience: a target that is left out is found by its own record to have the digest already."""

    kind = "done"
    step: int
    digest: str
    published: tuple[str, ...]


KINDS: dict[str, type[Slot]] = {kind.kind: kind for kind in (ClaimSlot, CommitSlot, RetireSlot, QuarantineSlot, DoneSlot)}


def slot_key(number: int) -> str:
    return f"log/{number:012d}.json"


def slot_number(key: str) -> int | None:
    """The number in a slot's key; None for any other object that somebody put beside the slots."""
    digits = key.removeprefix("log/").removesuffix(".json")
    return int(digits) if digits.isascii() and digits.isdigit() and slot_key(int(digits)) == key else None


def encode(slot: Slot) -> bytes:
    values = {field.name: getattr(slot, field.name) for field in fields(slot)}
    data = sealed({"format": FORMAT, "kind": slot.kind, **values})
    if len(data) > LARGEST_SLOT_BYTES:
        raise SdjobError(f"a {slot.kind} slot of {len(data)} bytes is over the limit of {LARGEST_SLOT_BYTES}.")
    return data


def decode(data: bytes, *, number: int) -> Slot:
    """The slot in these bytes, found under this number; DamagedSlotError where the two do not fit."""
    fields = unsealed(data, where=slot_key(number))
    if fields.pop("format", None) != FORMAT or fields.get("kind") not in KINDS:
        raise UnsoundError(
            "this slot was written by another version of sdjob.",
            where=slot_key(number),
            next_step="Go on with the version that wrote it, or a newer one.",
        )
    kind = cast("Callable[..., Slot]", KINDS[fields.pop("kind")])
    if fields.get("number") != number:
        raise DamagedSlotError(f"the slot says that it is number {fields.get('number')}.", where=slot_key(number))
    return kind(**{name: tuple(cast("list[Any]", value)) if isinstance(value, list) else value for name, value in fields.items()})


def sealed(fields: dict[str, Any]) -> bytes:
    """Canonical JSON with a checksum of all else in it."""
    return _canonical({**fields, "checksum": hashlib.sha256(_canonical(fields)).hexdigest()})


def unsealed(data: bytes, *, where: str) -> dict[str, Any]:
    """The fields; DamagedSlotError unless these are, byte for byte, the bytes that `sealed` made of them."""
    try:
        parsed: object = json.loads(data)
    except ValueError as error:
        raise DamagedSlotError("the bytes are no JSON.", where=where) from error
    if isinstance(parsed, dict):
        fields = cast("dict[str, Any]", parsed)
        fields.pop("checksum", None)
        if sealed(fields) == data:
            return fields
    raise DamagedSlotError("the checksum does not fit the bytes.", where=where)


def shortened(text: str, *, limit: int = LONGEST_TEXT) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def fitting(published: Sequence[str]) -> tuple[str, ...]:
    """As many of the places, in order, as a done slot can hold."""
    held: list[str] = []
    for place in published:
        if len(json.dumps([*held, place]).encode()) > PUBLISHED_BYTES:
            break
        held.append(place)
    return tuple(held)


def _canonical(fields: dict[str, Any]) -> bytes:
    return CANONICAL.encode(fields).encode()

"""A slot's bytes: what goes in comes out, and no changed byte does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdjob.ckpt.slot import (
    LARGEST_SLOT_BYTES,
    ClaimSlot,
    CommitSlot,
    DamagedSlotError,
    DoneSlot,
    QuarantineSlot,
    RetireSlot,
    Slot,
    Stamp,
    decode,
    encode,
    fitting,
    sealed,
    shortened,
    slot_key,
    slot_number,
)
from sdjob.core.errors import SdjobError, UnsoundError

STAMP = Stamp(number=17, epoch=3, nonce="ab" * 16, time_s=1.7e9)
SLOTS: list[Slot] = [
    ClaimSlot(**STAMP, attempt="3", host="pod-ü"),
    CommitSlot(**STAMP, step=500, manifest="c" * 64, digest="d" * 64, size_bytes=12),
    RetireSlot(**STAMP, slots=(1, 2), steps=(100, 200)),
    QuarantineSlot(**STAMP, slot=9, why="a flipped byte"),
    DoneSlot(**STAMP, step=500, digest="d" * 64, published=("hf://me/it",)),
]


@pytest.mark.parametrize("slot", SLOTS, ids=lambda slot: slot.kind)
class TestRoundTrip:
    def test_in_and_out(self, slot):
        assert decode(encode(slot), number=17) == slot

    def test_every_byte_counts(self, slot):
        data = encode(slot)
        for at in range(len(data)):
            for changed in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at], data[:at] + data[at + 1 :]):
                with pytest.raises(DamagedSlotError):
                    decode(changed, number=17)

    def test_another_slots_bytes(self, slot):
        with pytest.raises(DamagedSlotError, match="number 17"):
            decode(encode(slot), number=18)


def test_zeros_and_nothing_are_damage():
    for data in (b"", b"\0" * 300, b"[]", b"null", b"{}"):
        with pytest.raises(DamagedSlotError):
            decode(data, number=0)


def test_another_format_is_not_called_damage():
    for fields in ({"format": 2, "kind": "claim"}, {"format": 1, "kind": "merge"}):
        with pytest.raises(UnsoundError, match="another version") as caught:
            decode(sealed(fields), number=0)
        assert not isinstance(caught.value, DamagedSlotError)


def test_the_largest_of_each_fits():
    stamp = Stamp(number=10**12 - 1, epoch=10**9, nonce="f" * 32, time_s=1.7e9 + 0.123)
    wide = "\U0001f600" * 1000
    encode(ClaimSlot(**stamp, attempt=shortened(wide), host=shortened(wide)))
    encode(QuarantineSlot(**stamp, slot=10**12 - 1, why=shortened(wide, limit=300)))
    encode(RetireSlot(**stamp, slots=(10**12 - 1,) * 50, steps=(10**12 - 1,) * 50))
    encode(DoneSlot(**stamp, step=10**12, digest="d" * 64, published=fitting(["gs://bucket/" + "x" * 200] * 50)))
    with pytest.raises(SdjobError, match="over the limit"):
        encode(QuarantineSlot(**stamp, slot=1, why="x" * LARGEST_SLOT_BYTES))


@given(st.integers(0, 10**12 - 1))
def test_keys_sort_as_numbers(number):
    assert slot_number(slot_key(number)) == number
    assert slot_key(number) < slot_key(number + 1) or number == 10**12 - 1


@pytest.mark.parametrize(
    "key", ["log/1.json", "log/.DS_Store", "log/00000000001x.json", "hint/head", "log/000000000017", "log/²"]
)
def test_other_objects_are_no_slots(key):
    assert slot_number(key) is None

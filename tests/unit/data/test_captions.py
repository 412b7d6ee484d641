"""The captions of an index by number, as a dictionary would number them."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdjob.data.captions import EMPTY, captions_of
from sdjob.data.entries import Entry
from sdjob.data.lines import Lines, to_jsonl

# Quotes, commas and backslashes stand between captions too.
TEXT = st.one_of(
    st.text(st.sampled_from('",\\a\x7f\n'), min_size=1, max_size=4), st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)
)
CAPTIONS = st.lists(st.lists(TEXT, min_size=1, max_size=3).map(tuple), min_size=1, max_size=8)


def lines_with(captions: list[tuple[str, ...]]) -> Lines:
    sha256 = hashlib.sha256(b"").hexdigest()
    return Lines(to_jsonl([Entry(f"{number}.png", sha256, 8, 8, told) for number, told in enumerate(captions)]))


@pytest.mark.parametrize("hashed", [hash, len, lambda _: 0])
@given(told=CAPTIONS)
def test_each_has_the_number_of_its_first_appearance(hashed, told: list[tuple[str, ...]]):
    """However well hashes tell them apart."""
    numbers = {EMPTY: 0}
    for captions in told:
        for caption in captions:
            numbers.setdefault(caption, len(numbers))
    found = captions_of(lines_with(told), hashed=hashed)
    everything = np.arange(len(found))
    assert found.texts(everything) == list(numbers)
    assert found.spelled(everything) == list(map(json.dumps, numbers))
    for picture, captions in enumerate(told):
        assert [found.of(picture, choice=choice) for choice in range(len(captions))] == [numbers[c] for c in captions]
        assert found.of(picture, choice=None) == 0

"""What a run says of its data when it starts."""

from sdjob.data.entries import Entry
from sdjob.data.index import Index
from sdjob.job.inventory import inventory
from sdjob.spec.data import DataSpec


def index_of(*sizes: tuple[int, int]) -> Index:
    return Index(tuple(Entry(f"{n}.png", f"{n:064x}", width, height, ("a",)) for n, (width, height) in enumerate(sizes)))


def test_buckets_tell_what_they_save():
    """A square is kept; of 2:1 a square takes half, and 640 x 384 a sixth."""
    data = DataSpec.model_validate({"source": "x", "buckets": {}})
    (fact,) = inventory(index_of((300, 300), (1000, 500), (500, 1000)), data=data)
    counts = {"384 x 640": 1, "512 x 512": 1, "640 x 384": 1}
    assert (fact.name, fact.fields) == ("buckets", {"pictures": counts, "cropped": 0.1111, "cropped_plain": 0.3333})
    assert fact.words == "3 buckets: crops take 11.1% of the pixels, where 512 x 512 alone would take 33.3%"


def test_a_plain_run_has_nothing_to_tell():
    assert list(inventory(index_of((3, 4)), data=DataSpec.model_validate({"source": "x"}))) == []

"""Which pictures are trained on, how often, and which never."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from sdjob.core.errors import DataError
from sdjob.data.entries import Entry
from sdjob.data.index import Index
from sdjob.data.roles import num_of_sources, only_caption, roles_of
from sdjob.spec.data import DataSpec


def entry(number: int, *, content: str = "", source: int = 0) -> Entry:
    sha256 = hashlib.sha256((content or f"picture {number}").encode()).hexdigest()
    return Entry(f"{number:05d}.png", sha256, 64, 64, ("a",), source=source)


def spec(**fields: object) -> DataSpec:
    return DataSpec.model_validate({"source": "pictures", **fields})


def held_out(index: Index, **fields: object) -> set[str]:
    roles = roles_of(index, data=spec(held_out=fields))
    apart = {index.entries[number].id for number in roles.held_out}
    assert apart.isdisjoint(index.entries[number].id for number in roles.train)
    assert len(roles.train) + len(apart) == len(index)
    return apart


def test_all_are_trained_on_where_nothing_else_is_said():
    roles = roles_of(Index(tuple(map(entry, range(5)))), data=spec())
    assert (roles.train.tolist(), roles.prior.tolist(), roles.held_out.tolist()) == ([0, 1, 2, 3, 4], [], [])


def test_a_share_is_kept_however_the_data_grows():
    entries = tuple(map(entry, range(4000)))
    few, many = held_out(Index(entries[:1000]), share=0.1), held_out(Index(entries), share=0.1)
    assert few == {name for name in many if name < "01000"}
    assert abs(len(many) - 400) < 4 * 19  # four standard deviations of 4000 draws
    assert held_out(Index(entries), share=0.05) < many


def test_a_count_is_exact_and_of_the_lowest_hashes():
    index = Index(tuple(map(entry, range(50))))
    lowest = sorted(index.entries, key=lambda one: one.sha256)[:7]
    assert held_out(index, count=7) == {one.id for one in lowest}


def test_a_copy_of_what_is_held_out_is_not_trained_on():
    copies = tuple(entry(number, content=f"picture {number % 5}") for number in range(15))
    assert len(held_out(Index(copies), count=2)) == 6
    apart = (*map(entry, range(4)), entry(9, content="picture 2", source=1))
    roles = roles_of(Index(apart), data=spec(held_out={"source": "others"}))
    assert (roles.train.tolist(), roles.held_out.tolist()) == ([0, 1, 3], [4])


def test_the_one_caption_of_all():
    same, other = Index(tuple(map(entry, range(3)))), Index((entry(0), replace(entry(1), captions=("a", "b"))))
    assert only_caption(same, numbers=roles_of(same, data=spec()).train) == "a"
    assert only_caption(other, numbers=roles_of(other, data=spec()).train) is None
    assert only_caption(other, numbers=np.array([0])) == "a"


def test_repeats():
    data = DataSpec.model_validate({"sources": ({"source": "a", "repeats": 2}, {"source": "b"})})
    index = Index((entry(0), entry(1), entry(2, source=1)))
    roles = roles_of(index, data=data)
    assert roles.train.tolist() == [0, 0, 1, 1, 2]
    assert roles.num_trained == 3
    assert num_of_sources(index, numbers=roles.train) == {0: 4, 1: 1}


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"share": 1e-9}, "none of 3 pictures is held out by a share of 1e-09"), ({"count": 3}, "nothing is left to train on")],
)
def test_too_few_and_too_many(fields: dict, says: str):
    with pytest.raises(DataError, match=says):
        roles_of(Index(tuple(map(entry, range(3)))), data=spec(held_out=fields))

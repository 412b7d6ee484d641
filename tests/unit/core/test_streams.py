import pytest

from sdjob.core.streams import stream


def test_same_key_same_draws():
    assert stream(1, "noise", 2, 3).random(8).tolist() == stream(1, "noise", 2, 3).random(8).tolist()


@pytest.mark.parametrize(
    "other", [(2, "noise", 2, 3), (1, "crop", 2, 3), (1, "noise", 3, 3), (1, "noise", 2, 4), (1, "noise", 3, 2)]
)
def test_every_part_of_the_key_counts(other):
    assert stream(1, "noise", 2, 3).random(8).tolist() != stream(*other).random(8).tolist()


def test_neighbours_do_not_overlap():
    """A long draw at one counter never runs into the stream of the next."""
    assert not set(stream(1, "noise", 0).integers(2**63, size=5000)) & set(stream(1, "noise", 1).integers(2**63, size=5000))


def test_at_most_three_counters():
    with pytest.raises(ValueError, match="three counters"):
        stream(1, "noise", 1, 2, 3, 4)


@pytest.mark.parametrize("name", ["noise", "flip", "caption", "timestep", "order"])
@pytest.mark.parametrize("seed", [2**62, 2**63 - 3, -2])
def test_every_bit_of_the_seed_counts(name, seed):
    assert stream(seed, name).random() != stream(seed + 1, name).random()


def test_fixed_values():
    """Runs that began under another release go on with the same draws."""
    assert stream(0, "noise", 1, 2).integers(1000, size=4).tolist() == [5, 591, 675, 356]

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdjob.spec.scalars import plain_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("+.5", 0.5),
        ("1E3", 1000),
        ("15000.0", 15000),
        ("1e400", math.inf),
        ("-.inf", -math.inf),
        ("012", 12),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
    ],
)
def test_the_core_schema_of_yaml_1_2(text: str, value: object):
    read = plain_scalar(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "y", "1:30", "2024-01-01", "1_000", "0b1", "0o8", "nan", "=", "<<", "9" * 5000]
)
def test_what_yaml_1_1_alone_reads_otherwise_stays_text(text: str):
    assert plain_scalar(text) == text


def test_nan():
    assert math.isnan(float(plain_scalar(".nan") or 0))


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_whole_numbers_come_back(number: int):
    assert plain_scalar(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(number: float):
    assert plain_scalar(repr(number)) == number

"""The writing of a job file: text and numbers that every YAML reader reads back, and comments that cannot break it."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sdjob.convert.job_file import job_text, number, plain_or_quoted, quoted
from sdjob.convert.request import Note, Setting
from sdjob.spec.document import parse_document

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def both_readings(text: str) -> list[Any]:
    """By YAML 1.1 (PyYAML) and by 1.2 (ours)."""
    document = parse_document(text, source="test")
    assert not document.problems
    return [yaml.safe_load(text)["x"], document.data["x"]]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_the_same_for_all_readers(value: float):
    assert both_readings(f"x: {number(value)}") == [value, value]


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (1e-05, "1.0e-05"),
        (1e-4, "1.0e-04"),
        (3.2e-05, "3.2e-05"),
        (1.25e-8, "1.25e-08"),
        (-1e-05, "-1.0e-05"),
        (0.001, "0.001"),
        (0.9999, "0.9999"),
        (5.0, "5.0"),
        (0.0, "0.0"),
        (1e20, "1.0e+20"),
    ],
)
def test_numbers_are_spelled_for_people(value: float, spelled: str):
    assert number(value) == spelled


@given(TEXTS)
def test_texts_come_back(text: str):
    assert both_readings(f"x: {quoted(text)}") == [text, text]
    assert both_readings(f"x: {plain_or_quoted(text)}") == [text, text]


@pytest.mark.parametrize(
    "text", ["no", "1e-4", "1.5", "null", "~", "012", "1:30", "2026-01-01", "on", "0x1F", "", "a: b", "a #b", "x:"]
)
def test_what_a_reader_would_take_for_something_else_is_quoted(text: str):
    assert plain_or_quoted(text).startswith('"')


@pytest.mark.parametrize("text", ["hf://a/b", "./x", "/x/y", "runs/fox", "fp16", "${HOME}/x"])
def test_places_are_plain(text: str):
    assert plain_or_quoted(text) == text


@given(TEXTS, TEXTS)
def test_no_comment_can_add_or_hide_a_field(comment: str, note: str):
    settings = [Setting("name", "x", comment=comment), Setting("train.seed", 1, comment=comment, above=True)]
    text = job_text(settings, notes=[Note("", note)], file="script.py")
    assert yaml.safe_load(text) == {"apiVersion": "sdjob/v1", "name": "x", "train": {"seed": 1}}


def test_sections_nest_and_lists_are_written_out():
    settings = [
        Setting("name", "x"),
        Setting("train.optimizer.learning_rate", 1e-5, comment="why"),
        Setting("train.optimizer.betas", [0.9, 0.99]),
        Setting("train.seed", 1),
        Setting("publish", [{"to": "a"}, {"to": "hf://b/c", "private": False}], comment="where"),
        Setting("track", ["wandb"]),
    ]
    body = job_text(settings, notes=[], file="script.py").partition("apiVersion: sdjob/v1\n")[2]
    assert body == (
        "name: x\n\ntrain:\n  optimizer:\n    learning_rate: 1.0e-05        # why\n    betas: [0.9, 0.99]\n  seed: 1\n\n"
        "publish:                          # where\n  - to: a\n  - to: hf://b/c\n    private: false\n\ntrack: [wandb]\n"
    )


def test_long_comments_stand_above_and_no_line_is_too_long():
    settings = [Setting("train.seed", 1, comment="word " * 50)]
    lines = job_text(settings, notes=[Note("--x", "word " * 60)], file="script.py").splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[-1] == "  seed: 1"

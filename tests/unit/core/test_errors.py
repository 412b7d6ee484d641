"""The error tree is the contract's table of exit codes."""

import pytest

from sdjob.core import errors
from sdjob.core.errors import NoProgressError, SdjobError, UsageError, error_for_exit_code

CODES = {
    "SdjobError": 70, "UsageError": 64, "DataError": 65, "MissingError": 66, "UnavailableError": 69, "NoProgressError": 70,
    "PeerLostError": 71, "StorageError": 74, "StoppedError": 75, "FencedError": 76, "DeniedError": 77, "UnsoundError": 78,
    "TimeSpentError": 79,
}  # fmt: skip


def test_codes_and_the_picture_at_the_files_head():
    tree = {
        kind.__name__: kind.exit_code for kind in (SdjobError, *SdjobError.__subclasses__()) if kind.__module__ == errors.__name__
    }
    assert tree == CODES
    for name, code in CODES.items():
        assert any(name in line and str(code) in line for line in errors.__doc__.splitlines()), name


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "it is wrong."),
        ({"where": "train.steps"}, "train.steps: it is wrong."),
        ({"next_step": "Mend it."}, "it is wrong. Mend it."),
        ({"where": "train.steps", "next_step": "Mend it."}, "train.steps: it is wrong. Mend it."),
    ],
)
def test_what_a_person_reads(fields, text):
    assert str(UsageError("it is wrong.", **fields)) == text


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_a_childs_code_becomes_its_error_again(name, code):
    error = error_for_exit_code(code, "as the child said")
    assert error.exit_code == code
    assert str(error) == "as the child said"
    if code != 70:
        assert type(error).__name__ == name


@pytest.mark.parametrize("code", [70, 1, 2, 127, -9])
def test_any_other_code_is_a_fault_of_ours(code):
    error = error_for_exit_code(code, "silence")
    assert type(error) is SdjobError
    assert not isinstance(error, NoProgressError)


def test_what_to_do_next_follows_a_list_on_its_own_line():
    assert str(UsageError("two things:\n  a\n  b\n", next_step="Mend them.")) == "two things:\n  a\n  b\nMend them."

"""What the torch trainer's process does not import, and that a model which needs it has it all the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fakes.samplers import beta_sigmas, lms_coefficients
from sdjob.core.channel import ENVIRONMENT_NAME
from sdjob.train_torch.imports import Later, without

TESTS = Path(__file__).parents[2]
# The trainer's process as it is, but that it ends where it would speak to its parent.
TRAINER = """
import json, runpy, sys
from contextlib import suppress
from sdjob.core.errors import UsageError
with suppress(UsageError):
    runpy.run_module("sdjob.train_torch", run_name="__main__")
assert "sdjob.train_torch.main" in sys.modules
needless = {"scipy.optimize", "scipy.special", "boto3", "botocore"} & sys.modules.keys()
import scipy.stats.distributions, boto3
from fakes.samplers import beta_sigmas, lms_coefficients
print(json.dumps([sorted(needless), beta_sigmas(), lms_coefficients()]))
"""


@pytest.fixture(scope="module")
def told():
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT_NAME}
    environment["PYTHONPATH"] = str(TESTS)
    argv = [sys.executable, "-P", "-c", TRAINER]
    said = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    return json.loads(said.splitlines()[-1])


def test_what_no_training_needs_is_not_imported(told):
    """Where this fails after a new release of one of the packages: look for what else imports it, or leave it be."""
    assert told[0] == []


def test_samplers_that_need_scipy_draw_as_ever(told):
    assert told[1:] == [beta_sigmas(), lms_coefficients()]


def test_a_package_is_away_for_a_while_and_comes_back_as_it_was(monkeypatch):
    known = ModuleType("known")
    monkeypatch.setitem(sys.modules, "known", known)
    with without("known", "unknown"):
        with pytest.raises(ModuleNotFoundError):
            __import__("known")
        assert sys.modules["unknown"] is None
    assert sys.modules["known"] is known
    assert "unknown" not in sys.modules


def test_a_module_comes_when_it_is_asked_and_not_when_it_is_looked_at(monkeypatch, tmp_path):
    (tmp_path / "asked_for.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    stands = Later("asked_for")
    monkeypatch.setitem(sys.modules, "asked_for", stands)
    assert not hasattr(stands, "__file__")
    assert sys.modules["asked_for"] is stands
    assert stands.ANSWER == 42
    assert sys.modules["asked_for"] is not stands
    assert stands.ANSWER == 42

"""What is asked of this machine before anything is claimed."""

import importlib.util
import subprocess
import sys

import pytest

from sdjob.core.errors import DeniedError, UnavailableError, UsageError
from sdjob.track.access import check_access, wandb_mode

BOTH = ("tensorboard", "wandb")


@pytest.fixture
def home(tmp_path):
    return {"HOME": str(tmp_path)}


@pytest.mark.parametrize("missing", BOTH)
def test_a_missing_package_is_named_with_its_extra(missing, monkeypatch, home):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(UnavailableError, match=rf"{missing} .*pip install 'sdjob\[track\]'"):
        check_access(BOTH, environment={**home, "WANDB_MODE": "offline"})
    check_access(tuple({*BOTH} - {missing}), environment={**home, "WANDB_MODE": "offline"})


def test_online_needs_a_key_and_says_both_ways_out(home):
    with pytest.raises(DeniedError, match=r"WANDB_API_KEY.*WANDB_MODE=offline"):
        check_access(BOTH, environment=home)


@pytest.mark.parametrize(
    "environment",
    [
        {"WANDB_API_KEY": "k" * 40},
        {"WANDB_IDENTITY_TOKEN_FILE": "/run/token"},
        {"WANDB_MODE": "offline"},
        {"WANDB_MODE": "dryrun"},
        {"WANDB_MODE": "disabled"},
    ],
)
def test_each_of_these_is_enough(environment, home):
    check_access(BOTH, environment={**home, **environment})


def test_a_key_that_was_left_by_a_login(home, tmp_path):
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123456789\n")
    (tmp_path / ".netrc").chmod(0o600)
    check_access(BOTH, environment=home)
    with pytest.raises(DeniedError):
        check_access(BOTH, environment={**home, "WANDB_BASE_URL": "https://wandb.example.org"})


def test_a_job_without_wandb_needs_no_key(home):
    check_access(("tensorboard",), environment=home)
    check_access((), environment=home)


def test_a_mode_that_there_is_not(home):
    with pytest.raises(UsageError, match=r"WANDB_MODE.*'ofline'.*allowed: online"):
        wandb_mode({"WANDB_MODE": "ofline"})


def test_what_is_not_used_is_not_imported():
    code = "import sdjob.job.run, sys; print({'tensorboard', 'wandb', 'google.protobuf'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "set()"

import re
import tomllib
from pathlib import Path

import pytest

from fakes.checkpoints import make_job
from sdjob.job.doctor import packages
from sdjob.spec.load import parse_job

PROJECT = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def job_of(**fields):
    base = make_job().model_dump(mode="json")
    return parse_job({**base, **fields})


@pytest.fixture
def installed(monkeypatch):
    """Only these."""

    def install(*names):
        monkeypatch.setattr(packages, "installed_version", lambda name: "1.0" if name in names else None)

    return install


def plain(requirement):
    return re.split(r"[^A-Za-z0-9_-]", requirement)[0]


def test_the_table_is_pyprojects():
    extras = PROJECT["optional-dependencies"]
    assert {name: tuple(map(plain, extras[name])) for name in packages.EXTRAS} == packages.EXTRAS
    assert {"dev", "images", "k8s", *packages.EXTRAS} >= set(extras)


def test_without_a_job_one_line_says_what_is_missing_and_how_to_get_it(installed):
    installed(*packages.EXTRAS["torch"], "tensorboard")
    found = list(packages.extras(None))
    assert [finding.what for finding in found if finding.state == "ok"] == [
        "torch: accelerate 1.0, diffusers 1.0, peft 1.0, torch 1.0, transformers 1.0.",
        "track: tensorboard 1.0.",
    ]
    (missing,) = (finding for finding in found if finding.state != "ok")
    assert missing.state == "warning"
    assert "track (wandb)" in missing.what
    assert "xformers" not in missing.what
    assert missing.next_step == "For what you need of it: pip install 'sdjob[flax,s3,gcs,hub,data,track]'"


def test_with_a_job_what_it_needs_and_lacks_is_69(installed):
    installed("torch")
    found = list(packages.extras(make_job()))
    assert [(finding.state, finding.exit_code) for finding in found] == [("ok", 0), ("failed", 69)]
    assert found[1].what == "accelerate, diffusers, peft, transformers are not installed, and the job needs them."
    assert found[1].next_step == "pip install 'sdjob[torch]'"


@pytest.mark.parametrize(
    ("fields", "extras"),
    [
        ({}, ("torch",)),
        ({"model": {"source": "hf://a/b"}}, ("torch", "hub")),
        ({"data": {"source": "hf://a/b"}}, ("torch", "hub", "data")),
        ({"checkpoint": {"to": "s3://bucket/x"}, "publish": [{"to": "gs://bucket/x"}]}, ("torch", "s3", "gcs")),
        ({"run": {"cache": "gs://bucket/x"}}, ("torch", "gcs")),
        ({"track": ["wandb"]}, ("torch", "track")),
    ],
)
def test_what_a_job_needs(fields, extras):
    assert packages.needed_extras(job_of(**fields)) == extras


def test_only_the_trackers_that_it_names(installed):
    installed(*packages.EXTRAS["torch"], "tensorboard")
    assert {finding.state for finding in packages.extras(job_of(track=["tensorboard"]))} == {"ok"}
    assert packages.packages_of("track", job_of(track=["wandb"])) == ("wandb",)

"""What can be said of the images without building them."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from requirements import requirements
from sdjob.cluster.environment import CACHES
from sdjob.cluster.names import SCRATCH
from sdjob.cluster.pod import IMAGES
from sdjob.spec.kubernetes import KubernetesSpec

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = {folder.name: folder / "Dockerfile" for folder in sorted((ROOT / "images").iterdir()) if (folder / "Dockerfile").exists()}
kinds = pytest.mark.parametrize("kind", FILES)


def test_there_is_one_for_each_that_is_rendered() -> None:
    assert {f"sdjob-{kind}" for kind in FILES} == set(IMAGES.values())


@kinds
def test_hadolint_has_nothing_to_say(kind: str) -> None:
    done = subprocess.run([Path(sys.executable).with_name("hadolint"), FILES[kind]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@kinds
def test_it_is_what_a_rendered_pod_expects(kind: str) -> None:
    told = instructions(kind)
    assert told["USER"] == f"{KubernetesSpec().run_as_user}:{KubernetesSpec().run_as_user}"
    assert json.loads(told["ENTRYPOINT"]) == ["sdjob"]
    assert told["WORKDIR"] == SCRATCH
    environment = dict(pair.split("=", 1) for pair in told["ENV"].split())
    assert {name: f"{SCRATCH}/{below}" for name, below in CACHES.items()}.items() <= environment.items()
    assert environment["SDJOB_SCRATCH"] == SCRATCH


@kinds
def test_its_base_is_pinned(kind: str) -> None:
    assert re.search(r"^ARG BASE_IMAGE=\S+:3\.11-\S+@sha256:[0-9a-f]{64}$", FILES[kind].read_text(), re.MULTILINE)


@kinds
def test_what_it_installs_is_pinned(kind: str) -> None:
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]}
    names = [re.split(r"[\[><=]", requirement)[0] for requirement in requirements(PROJECT, extras=extras_of(kind))]
    assert set(names) <= pinned


def test_the_tpu_image_installs_no_torch() -> None:
    assert "torch" not in requirements(PROJECT, extras=extras_of("tpu"))
    assert "torch" in requirements(PROJECT, extras=extras_of("cuda"))
    assert {"torch", "jax"} < set(requirements(PROJECT, extras=extras_of("cpu")))


def instructions(kind: str) -> dict[str, str]:
    """The last of each, of the last stage."""
    stage = FILES[kind].read_text().replace("\\\n", " ").rpartition("\nFROM ")[2]
    return dict(line.split(" ", 1) for line in stage.splitlines()[1:])


def extras_of(kind: str) -> list[str]:
    found = re.search(r"requirements\.py (sdjob .*) > sdjob\.txt", FILES[kind].read_text())
    assert found is not None
    return found[1].split()

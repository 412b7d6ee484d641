"""The image under test, built once from the repository's Dockerfile, and one run of the quickstart in it."""

from collections.abc import Iterator

import pytest

from fakes.podman import Container, Straight, configure, owned_folder
from fakes.running import Job
from fakes.scripts import script
from sdjob import __version__


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in configure(tmp_path_factory.mktemp("podman")).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def base(machine: None) -> str:
    return script("images/debian.py").split()[-1]


@pytest.fixture(scope="session")
def cpu_image(base: str) -> str:
    script("images/build.py", "cpu", f"--base={base}", "--engine=buildah")
    return f"localhost/sdjob-cpu:{__version__}"


@pytest.fixture(scope="session")
def straight(cpu_image: str, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    job = Job(owned_folder(tmp_path_factory.mktemp("straight") / "scratch"))
    return Straight(job, Container.quickstart(cpu_image, job=job, name="sdjob-straight").running.end())

"""What tests share: golden files, real runs, servers."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.running import Workshop
from fakes.weather import Weather

if TYPE_CHECKING:  # the SDKs that servers.py imports are for the tests that use a server
    from fakes.hub import Desk, Hub
    from fakes.servers import GcsServer, S3Server


# A shell starts what it leaves in the background without Ctrl-C, and so would be all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="rewrite the golden files instead of comparing with them")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """What a person must be able to trust to the letter: compares a text with a file, or writes it there where the command line
    asks for that (`make goldens`; the diff is then read). No text is no file."""
    update = request.config.getoption("--update-goldens")

    def check(path: Path, text: str) -> None:
        if update and text:
            path.write_text(text, encoding="utf-8")
        elif update:
            path.unlink(missing_ok=True)
        if not text:
            assert not path.exists(), f"nothing was written where {path.name} has a text"
            return
        assert path.is_file(), f"{path.name} is missing: run `make goldens` and read it"
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture
def weather(tmp_path: Path, golden: Callable[[Path, str], None]) -> Weather:
    return Weather(tmp_path / "weather", golden=golden)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """One for all of pytest's processes."""
    base: Path = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "workshop"
    folder.mkdir(exist_ok=True)
    return Workshop(folder)


# ---- servers: one of each for a pytest process, started by the first test that asks ----------------------------------------


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[S3Server]":
    from fakes.servers import start_seaweed

    server = start_seaweed(tmp_path_factory.mktemp("seaweed"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[S3Server]":
    from fakes.servers import start_moto

    server = start_moto(tmp_path_factory.mktemp("moto"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[GcsServer]":
    from fakes.servers import start_gcs

    server = start_gcs(tmp_path_factory.mktemp("gcs"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def hub() -> "Iterator[Hub]":
    from fakes.hub import Hub

    double = Hub()
    yield double
    double.close()


@pytest.fixture
def desk(hub: "Hub", monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Desk":
    from fakes.hub import Desk

    return Desk(hub, patch=monkeypatch, home=tmp_path / "hub-home")

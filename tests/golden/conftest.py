"""Golden files: what a person must be able to trust to the letter. `make goldens` rewrites them; the diff is then read."""

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="rewrite the golden files instead of comparing with them")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compares a text with a file, or writes it there where the command line asks for that; no text is no file."""
    update = request.config.getoption("--update-goldens", default=False)

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

"""Pages of made-up runs in a real browser: Debian's Chromium, driven by playwright; axe-core from npm looks for barriers.

`.ci/run` installs Chromium and, by `npm ci` in this folder, axe-core.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from browser.stories import page_of
from sdjob.report.overview import Price

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
# A closed network is asked nothing: https://peter.sh/experiments/chromium-command-line-switches/
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@dataclass
class Look:
    """One page, as somebody has it open."""

    page: Page
    asked: list[str] = field(default_factory=list[str])
    """Every address that it asked for."""

    complaints: list[str] = field(default_factory=list[str])
    """What stands in the console."""

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def scroll_to(self, selector: str) -> Locator:
        """The first one, in view. The page is told of a scroll with the next frame, and hides its tip then."""
        found = self.page.locator(selector).first
        found.scroll_into_view_if_needed()
        self.page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        return found

    def barriers(self) -> list[str]:
        """axe-core's violations: https://github.com/dequelabs/axe-core/blob/develop/doc/API.md."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = self.page.evaluate("() => axe.run()")
        assert len(found["passes"]) > 15, "it has looked"
        return [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def written_pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder, pages = tmp_path_factory.mktemp("pages"), dict[str, Path]()

    def written(story: str) -> Path:
        if story not in pages:
            pages[story] = page_of(story, folder=folder, price=Price(0.28, "a price list"))
        return pages[story]

    return written


@pytest.fixture
def look(chromium: Browser, written_pages: Callable[[str], Path]) -> Iterator[Callable[..., Look]]:
    contexts: list[Any] = []

    def opened(story: str, *, width: int = 1440, scheme: Any = "light") -> Look:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        found = Look(context.new_page())
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.goto(written_pages(story).as_uri())
        return found

    yield opened
    for context in contexts:
        context.close()

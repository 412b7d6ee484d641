"""A run's place in a folder, filled with made-up attempts, and its page."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from fakes.clock import FakeClock
from fakes.ledgers import BEGIN_S, MadeUp, written
from sdjob.core.log import Log
from sdjob.ledger.write import SCHEMA
from sdjob.report.overview import Price
from sdjob.report.write import write_report
from sdjob.store.local import LocalStore


def finished_run() -> list[MadeUp]:
    """Killed at step 10 of 20 with 5 committed, and brought to its end by another attempt."""
    first = MadeUp(1, BEGIN_S, total_steps=20)
    first.start()
    first.prepare()
    first.warm_up()
    first.train(5)
    first.validate(1.5)
    first.save()
    first.train(5)
    first.kill()
    second = MadeUp(2, first.now_s + 40, step=5, total_steps=20)
    second.start()
    second.prepare()
    second.warm_up()
    second.train(15)
    second.validate(1.5)
    second.finish()
    return [first, second]


@dataclass
class Place:
    folder: Path
    now_s: float = BEGIN_S + 1000
    secrets: tuple[str, ...] = ()
    log: io.StringIO = field(default_factory=io.StringIO)

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def write(self, made: Sequence[MadeUp], *, job: Any = None, schema: int = SCHEMA) -> "Place":
        written([one.ledger() for one in made], place=self.run, schema=schema)
        if job is not None:
            (self.run / "job.yaml").write_text(yaml.safe_dump(job, allow_unicode=True), encoding="utf-8")
        return self

    def draw(self, attempt: int, step: int, *names: str, data: bytes | None = None) -> None:
        for name in names:
            path = self.run / f"attempts/{attempt:04d}/samples/{step:08d}/{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png((step * 9 % 255, 99, 0)) if data is None else data)

    def page(self, *, price: Price | None = None) -> str:
        out = self.folder / "report.html"
        clock = FakeClock(unix_s=self.now_s)
        log = Log(mode="json", stream=self.log, clock=clock, secrets=self.secrets)
        write_report(LocalStore(self.run), out=out, price=price, clock=clock, log=log)
        return out.read_text(encoding="utf-8")


def png(color: tuple[int, int, int], *, side: int = 64) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), color).save(out, format="PNG")
    return out.getvalue()


def words_of(page: str) -> str:
    """What a person reads, without markup, styles and scripts."""
    visible = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", visible))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def made() -> Callable[[], list[MadeUp]]:
    return finished_run

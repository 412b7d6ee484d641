"""A folder of results that is published to the Hub's double by the real client."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.checkpoints import make_job
from fakes.clock import FakeClock
from fakes.hub import Desk
from sdjob.core.errors import StoppedError
from sdjob.core.log import Log, secret_values
from sdjob.core.retry import Backoff
from sdjob.job.card import CARD_NAME, CardFacts, SamplePicture, model_card
from sdjob.job.licence import Licence
from sdjob.job.publish import PublishOutcome, publish
from sdjob.job.record import Publication, public_job
from sdjob.spec.places import parse_place
from sdjob.store.hub import HubStore

JOB = make_job(model={"source": "hf://CompVis/stable-diffusion-v1-4", "revision": "a" * 40}, data={"source": "/secret/pictures"})
FIRST = Publication(digest="d1", identity="run-1", step=10, job=public_job(JOB), versions={"sdjob": "0.1.0"})
LATER = replace(FIRST, digest="d2", step=20)
ANOTHER = replace(FIRST, digest="d3", identity="run-2")
WEIGHTS = bytes(range(256)) * 100


def card() -> str:
    samples = (SamplePicture(file="samples/0.png", prompt="a cat"),)
    facts = CardFacts(
        step=10, digest="d1", precision="bf16", num_pictures=3, sdjob_version="0.1.0", resume="exact", samples=samples
    )
    return model_card(JOB, facts=facts, licence=Licence("creativeml-openrail-m"))


FILES = {
    CARD_NAME: card().encode(),
    "pytorch_lora_weights.safetensors": WEIGHTS,
    "x.kohya.safetensors": WEIGHTS[::-1],
    "samples/0.png": b"\0picture",
}


class Publishing:
    """A folder of results and a repository, as a test sees them."""

    def __init__(self, desk: Desk, *, name: str, root: Path) -> None:
        self.hub, self.name, self.results = desk.hub, name, root / "results"
        self.stream, self.checks = io.StringIO(), 0
        self.stop_at: int | None = None
        self.backoff = Backoff(attempts=3, base_s=0.0, clock=FakeClock())
        for path, data in FILES.items():
            (self.results / path).parent.mkdir(parents=True, exist_ok=True)
            (self.results / path).write_bytes(data)

    def __call__(self, publication: Publication = FIRST, *, replace: bool = False, private: bool = True) -> PublishOutcome:
        return publish(
            HubStore.of(parse_place(f"hf://{self.name}", base=Path("/"))),
            folder=self.results,
            publication=publication,
            replace=replace,
            private=private,
            check_stop=self.check_stop,
            log=Log(mode="json", stream=self.stream, secrets=secret_values(dict(os.environ))),
            backoff=self.backoff,
        )

    def check_stop(self) -> None:
        if self.checks == self.stop_at:
            raise StoppedError("stopped")
        self.checks += 1

    def in_between(self, action, monkeypatch: pytest.MonkeyPatch) -> None:
        """Somebody else acts when all is uploaded and only the commit is missing."""
        create_commit = HubStore.commit_tree

        def commit_tree(store: HubStore, **options):
            action()
            create_commit(store, **options)

        monkeypatch.setattr(HubStore, "commit_tree", commit_tree)

    @property
    def there(self) -> dict[str, bytes]:
        return self.hub.files("models", self.name)

    @property
    def record(self) -> dict:
        return json.loads(self.there["sdjob.json"])

    @property
    def num_commits(self) -> int:
        return len(self.hub.commits("models", self.name))

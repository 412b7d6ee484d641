"""When trainers begin to import: before what takes long, and not where the log says that nothing is to be trained."""

from contextlib import suppress
from types import SimpleNamespace

import pytest

from fakes.checkpoints import make_job
from sdjob.core.errors import MissingError
from sdjob.job import run as runs
from sdjob.job.run import is_to_train, look_back

STEPS = {"steps": 8}
EPOCHS = {"steps": None, "epochs": 2}


def history(*, step, done=None):
    return SimpleNamespace(live=[SimpleNamespace(step=step)], done=done)


@pytest.mark.parametrize(
    ("train", "step", "done", "expected"),
    [
        (STEPS, 7, None, True),
        (STEPS, 8, None, False),
        (STEPS, 8, SimpleNamespace(step=8), False),
        (STEPS, 4, SimpleNamespace(step=4), False),
        (EPOCHS, 1000, None, True),
        (EPOCHS, 1000, SimpleNamespace(step=1000), False),
    ],
    ids=["on-the-way", "to-publish", "done", "done-before", "epochs", "epochs-done"],
)
def test_what_the_log_tells_of_the_training(train, step, done, expected):
    assert is_to_train(make_job(train=train), history(step=step, done=done)) is expected


@pytest.fixture
def look(monkeypatch):
    """What is done, in order, until the model is staged; `stored` are the newest commit's facts."""

    def looked(*, stored, step):
        deeds = []

        def stage(run, *, may_write):
            deeds.append("stage")
            raise MissingError("no model there")

        monkeypatch.setattr(runs, "newest_facts", lambda commits, history: stored)
        monkeypatch.setattr(runs, "start_early", lambda run, *, stored: deeds.append(("start", stored)))
        monkeypatch.setattr(runs, "stage", stage)
        run = SimpleNamespace(job=make_job(train=STEPS), commits=SimpleNamespace(replay=lambda: history(step=step)))
        with suppress(MissingError):
            look_back(run, watch=None)
        return deeds

    return looked


def test_trainers_of_a_run_that_goes_on_are_started_before_its_model_is_fetched(look):
    facts = {"fingerprint": {"threads": 3}}
    assert look(stored=facts, step=2) == [("start", facts), "stage"]


def test_a_run_that_has_only_to_publish_starts_none(look):
    assert look(stored={"fingerprint": {"threads": 3}}, step=8) == ["stage"]


def test_without_a_commit_they_are_the_attempts_own_to_start(look):
    assert look(stored=None, step=2) == []

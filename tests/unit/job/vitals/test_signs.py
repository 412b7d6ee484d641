"""What is told from outside is what the ledger's records say; and only a training that stands still is trouble."""

import pytest

from fakes.clock import FakeClock
from sdjob.ckpt.history import LoggedCommit
from sdjob.job.vitals.signs import QUIET_S, Vitals
from unit.spec.jobs import job

COMMIT = {"kind": "commit", "step": 20, "time_s": 1_700_000_100.0, "seconds": 2.5, "size_bytes": 4096, "stall_s": 0.25}


DRAWING = "validation={prompts: [a cat], every_steps: 25}"


def vitals(*overrides):
    return Vitals(job(*overrides), FakeClock())


def train(made, *, steps, total=100, step_s=1.0):
    made.note({"kind": "train", "start_step": 0, "total_steps": total})
    for step in steps:
        made.clock.advance(step_s)
        made.note({"step": step, "loss": 1 / step, "images": 4, "data_wait_s": 0.5, "images_per_s": 4.0, "grad_norm": 2.0})


def test_an_attempt_begins_where_the_run_stands():
    made = vitals()
    made.claimed(1, newest=None)
    assert (made.signs.attempt, made.signs.step, made.signs.committed_step, made.signs.phase) == (1, None, None, "staging")
    newest = LoggedCommit(slot=3, epoch=1, step=50, digest="d", manifest="m", size_bytes=1, time_s=1_699_999_000.0, state="live")
    made.claimed(2, newest=newest)
    assert (made.signs.attempt, made.signs.step, made.signs.committed_step) == (2, 50, 50)
    assert made.signs.committed_unix_s == 1_699_999_000.0


def test_steps_and_saves_add_up():
    made = vitals()
    train(made, steps=(1, 2, 20))
    made.note(COMMIT)
    made.note({"kind": "save-failed", "step": 21})
    made.note({"kind": "save-skipped", "step": 22})
    made.note({"kind": "save-missed", "step": 23})
    signs = made.signs
    assert (signs.phase, signs.step, signs.target_step, signs.loss, signs.num_images) == ("training", 20, 100, 0.05, 12)
    assert (signs.data_wait_s, signs.slowest_step_s) == (1.5, 1.0)
    assert (signs.committed_step, signs.committed_unix_s, signs.commit_s) == (20, 1_700_000_100.0, 2.5)
    assert (signs.num_commits, signs.committed_bytes, signs.stall_s, signs.num_missed_saves) == (1, 4096, 0.25, 3)


def test_the_phases_of_an_attempt():
    made, seen = vitals(), []
    made.note({"kind": "start", "host": "here"})
    seen.append(made.signs.phase)
    train(made, steps=())
    seen.append(made.signs.phase)
    train(made, steps=(20,), total=20)
    seen.append(made.signs.phase)
    made.note(COMMIT)
    seen.append(made.signs.phase)
    made.note({"kind": "end", "exit_code": 0})
    assert [*seen, made.signs.phase] == ["staging", "starting", "training", "publishing", "ended"]


def test_a_training_that_stands_still_is_trouble():
    made = vitals()
    train(made, steps=(1, 2))
    made.clock.advance(QUIET_S)
    assert made.trouble() is None
    made.clock.advance(60)
    assert made.trouble() == "no step since step 2, 31 minutes ago; the slowest before took 1.0 s"
    made.note({"step": 3})
    assert made.trouble() is None


def test_slow_steps_have_longer():
    made = vitals()
    train(made, steps=(1, 2), step_s=600.0)
    made.clock.advance(20 * 600.0)
    assert made.trouble() is None
    made.clock.advance(1.0)
    assert made.trouble()


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"kind": "train", "start_step": 0, "total_steps": 100}, {"kind": "ready"}],
        [{"kind": "train", "start_step": 0, "total_steps": 1}, {"step": 1}],
        [{"kind": "train", "start_step": 0, "total_steps": 20}, {"step": 20}, COMMIT],
        [{"kind": "train", "start_step": 0, "total_steps": 100}, {"step": 20}, {"kind": "end", "exit_code": 0}],
        [{"kind": "train", "start_step": 0, "total_steps": 100}, {"step": 50}],
    ],
    ids=["staging", "compiling", "the last save", "publishing", "ended", "drawing"],
)
def test_whatever_waits_for_others_is_no_trouble(records):
    made = vitals(DRAWING)
    for record in records:
        made.note(record)
    made.clock.advance(1e6)
    assert made.trouble() is None


@pytest.mark.parametrize(("step", "stands_still"), [(9, False), (18, True), (19, False), (98, True), (99, False)])
def test_a_step_after_which_the_held_out_loss_is_computed_has_longer(step, stands_still):
    made = vitals("data.held_out={share: 0.1}", "validation={loss_every_steps: 10}")
    train(made, steps=(step,), total=100)
    made.clock.advance(1e6)
    assert (made.trouble() is not None) is stands_still


def test_between_two_drawings_it_is_trouble():
    made = vitals(DRAWING)
    train(made, steps=(51,))
    made.clock.advance(1e6)
    assert made.trouble()

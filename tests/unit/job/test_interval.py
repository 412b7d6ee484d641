"""How far apart commits are: by Young's and Daly's rule, from what is measured and what has happened."""

import pytest

from fakes.clock import FakeClock
from sdjob.job.interval import Interval, begun, interrupted_every_s, interval_of, last_save
from sdjob.ledger.read import AttemptLedger
from sdjob.plan.interruptions import FIRST_S, LONGEST_S, SHORTEST_S, Save, interval_s
from sdjob.spec.hardware import parse_accelerator
from unit.spec.jobs import job

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("save", "every_s", "seconds"),
    [
        (Save(cost_s=2.0, upload_s=5.0), 10_000.0, 200.0),
        (Save(cost_s=8.0, upload_s=5.0), 10_000.0, 400.0),
        (Save(cost_s=2.0, upload_s=5.0), 40_000.0, 400.0),
        (Save(cost_s=2.0, upload_s=300.0), 10_000.0, 300.0),
        (Save(cost_s=0.0, upload_s=0.1), DAY_S, SHORTEST_S),
        (Save(cost_s=60.0, upload_s=100.0), 30 * DAY_S, LONGEST_S),
        (Save(cost_s=60.0, upload_s=5000.0), 30 * DAY_S, 5000.0),
        (None, DAY_S, FIRST_S),
    ],
    ids=["the rule", "dearer", "safer", "never shorter than an upload", "free", "very safe", "very slow", "nothing known"],
)
def test_the_distance(save, every_s, seconds):
    assert interval_s(save, interrupted_every_s=every_s) == pytest.approx(seconds)


class TestInterruptions:
    def every_hours(self, *overrides, ledgers=()):
        made = job(*overrides)
        return interrupted_every_s(made, accelerator=parse_accelerator(made.run.accelerator), ledgers=ledgers) / 3600

    def attempt(self, hours, *, exit_code=None):
        events = [{"kind": "start", "time_s": 0.0}, {"kind": "commit", "time_s": 3600.0 * hours}]
        if exit_code is not None:
            events.append({"kind": "end", "exit_code": exit_code, "time_s": 3600.0 * hours})
        return AttemptLedger(attempt=1, events=events)

    def test_before_the_run_has_shown_anything(self):
        assert self.every_hours() == pytest.approx(6334)
        assert self.every_hours("run.spot=true") == pytest.approx(24)

    def test_a_gang_is_interrupted_by_any_of_its_machines(self):
        assert self.every_hours("run.spot=true", "run.accelerator='nvidia-l4:8'", "run.nodes=4") == pytest.approx(6)
        assert self.every_hours("run.spot=true", "train.backend=flax", "run.accelerator='tpu-v5e:4x4'") == pytest.approx(6)

    def test_the_runs_own_attempts_count_one_by_one(self):
        killed, stopped, whole = self.attempt(2), self.attempt(4, exit_code=75), self.attempt(6, exit_code=0)
        assert self.every_hours("run.spot=true", ledgers=[killed]) == pytest.approx((24 + 2) / 2)
        assert self.every_hours("run.spot=true", ledgers=[killed, stopped]) == pytest.approx((24 + 6) / 3)
        assert self.every_hours("run.spot=true", ledgers=[whole]) == pytest.approx(24 + 6)


class Bench:
    def __init__(self, **settings):
        self.clock, self.told = FakeClock(), []
        self.interval = Interval(interrupted_every_s=20_000.0, clock=self.clock, tell=self.tell, **settings)
        self.told.clear()

    def tell(self, seconds, words, told):
        self.told.append((seconds, words, told))

    def steps(self, *seconds, saving=False):
        for step_s in seconds:
            self.clock.advance(step_s)
            self.interval.stepped(saving=saving)


class TestMeasuring:
    def test_a_save_costs_what_the_steps_beside_it_took_longer(self):
        b = Bench()
        b.steps(1.0, 1.0, 1.0, 1.0)
        b.steps(2.5, 1.5, 1.0, saving=True)  # the copy's standstill is in the first
        b.interval.saved(1.5, 5.0)
        words = "a commit every 283 s: one costs 2.00 s and is uploaded in 5.0 s, an interruption comes every 5.6 hours"
        figures = {"cost_s": 2.0, "upload_s": 5.0, "interrupted_every_s": 20_000}
        assert b.told == [(pytest.approx((2 * 2.0 * 20_000) ** 0.5), words, figures)]

    def test_at_least_its_standstill_and_at_most_all_of_it(self):
        for beside_s, cost_s in [(0.9, 0.5), (50.0, 3.5)]:
            b = Bench()
            b.steps(1.0, 1.0, 1.0)
            b.steps(beside_s, saving=True)
            b.interval.saved(0.5, 3.0)
            assert b.interval.save.cost_s == cost_s

    def test_without_a_quiet_step_the_standstill_counts(self):
        b = Bench()
        b.interval.saved(0.5, 3.0)
        assert b.interval.save == Save(cost_s=0.5, upload_s=3.0)

    def test_a_drawing_between_two_steps_is_no_slow_step(self):
        b = Bench()
        b.steps(1.0, 1.0, 1.0)
        b.clock.advance(100.0)
        b.interval.interrupted()
        b.steps(1.0, 1.25, saving=True)
        b.interval.saved(0.125, 3.0)
        assert b.interval.save.cost_s == 0.25

    def test_a_later_save_counts_half(self):
        b = Bench(save=Save(cost_s=1.0, upload_s=2.0))
        b.interval.saved(3.0, 6.0)
        assert b.interval.save == Save(cost_s=2.0, upload_s=4.0)

    def test_a_small_change_is_not_told(self):
        b = Bench(save=Save(cost_s=1.0, upload_s=2.0))
        assert b.interval.seconds == 200.0
        b.interval.saved(1.2, 2.0)
        assert (b.told, b.interval.seconds) == ([], 200.0)
        b.interval.saved(9.0, 2.0)
        assert len(b.told) == 1

    def test_a_later_attempt_begins_with_what_was_measured(self):
        told = {"kind": "interval", "cost_s": 2.0, "upload_s": 5.0, "seconds": 1.0, "time_s": 1.0}
        first = {"kind": "interval", "interrupted_every_s": 1, "seconds": 60.0, "time_s": 2.0}
        ledgers = [
            AttemptLedger(attempt=1, events=[{**told, "cost_s": 9.0}, told]),
            AttemptLedger(attempt=2, events=[{"kind": "start", "time_s": 2.0}, first]),
        ]
        assert last_save(ledgers) == Save(cost_s=2.0, upload_s=5.0)
        assert last_save(ledgers[1:]) is None

    def test_each_choice_is_told_with_its_reason(self):
        told = []
        clock, spot = FakeClock(), job("run.spot=true")
        made = interval_of(spot, ledgers=[], clock=clock, tell=lambda *all: told.append(all))
        assert told == [(60.0, "the first commit after 60 s, to see what one costs", {"interrupted_every_s": DAY_S})]
        made.saved(2.0, 5.0)
        assert told[1][0] == pytest.approx((2 * 2.0 * DAY_S) ** 0.5)

    def test_the_trainer_is_told_seconds_and_no_auto(self):
        checkpoint = begun(job("checkpoint.every=auto"), seconds=60.0).checkpoint
        assert (checkpoint.every, checkpoint.every_steps, checkpoint.every_seconds) == (None, None, 60.0)

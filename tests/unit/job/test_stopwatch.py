"""The parts of a start add up to the whole."""

from fakes.clock import FakeClock
from sdjob.job.stopwatch import Lap, Stopwatch


def test_laps_follow_one_another_from_the_start_of_the_process():
    clock = FakeClock()
    clock.advance(100.0)
    watch = Stopwatch(clock, age_s=2.5)
    assert watch.lap("imports") == Lap("imports", 2.5)
    clock.advance(4.0)
    assert watch.lap("look") == Lap("look", 4.0)
    clock.advance(1.25)
    watch.leave_out(1.0)
    assert watch.lap("load") == Lap("load", 0.25)
    assert [lap.name for lap in watch.laps] == ["imports", "look", "load"]
    clock.advance(0.267)
    assert watch.total_s() == 7.75, "what came after the last lap, such as the telling of it, lies in none"


def test_what_is_told_apart_is_no_part_of_the_lap_around_it():
    clock = FakeClock()
    watch = Stopwatch(clock, age_s=1.0)
    clock.advance(0.5)
    assert watch.apart("stage", lambda: clock.advance(3.0) or "staged") == "staged"
    clock.advance(0.25)
    watch.lap("look")
    assert watch.laps == [Lap("stage", 3.0), Lap("look", 1.75)]
    assert watch.total_s() == 4.75

"""The line that a person watches."""

import pytest

from fakes.clock import FakeClock
from sdjob.job.progress import WINDOW_STEPS, Progress, duration


def test_the_first_step_has_no_rate_yet():
    assert Progress(100, FakeClock()).line(step=1, loss=0.12345, images=4) == f"[{'.' * 24}] step 1/100  loss 0.1235"


def test_rate_and_time_left_follow_the_last_steps():
    clock = FakeClock()
    progress = Progress(100, clock)
    for step in range(1, 51):
        clock.advance(2.0)
        line = progress.line(step=step, loss=0.5, images=4)
    assert line == f"[{'#' * 12}{'.' * 12}] step 50/100  loss 0.5000  2.0 images/s  1:40 left"
    for step in range(51, 51 + WINDOW_STEPS):
        clock.advance(0.5)
        line = progress.line(step=step, loss=0.5, images=4)
    assert line == f"[{'#' * 24}] step 100/100  loss 0.5000  8.0 images/s  0:00 left"
    assert progress.step_s() == pytest.approx(0.5)


def test_a_resumed_run_counts_its_own_steps():
    clock = FakeClock()
    progress = Progress(100, clock)
    progress.line(step=91, loss=0.5, images=1)
    clock.advance(3.0)
    assert "step 92/100" in progress.line(step=92, loss=0.5, images=1)
    assert progress.step_s() == 3.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00"), (360_000, "100:00:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text

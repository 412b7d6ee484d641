"""The line that a person watches."""

import pytest

from fakes.clock import FakeClock
from sdjob.job.progress import WINDOW_STEPS, Progress, Stand, duration, live_line


def test_the_first_step_has_no_rate_yet():
    stand = Progress(100, FakeClock()).stepped(step=1, loss=0.12345, images=4)
    assert live_line(stand, columns=None) == f"[{'.' * 24}] step 1/100  loss 0.1235"


def test_rate_and_time_left_follow_the_last_steps():
    clock = FakeClock()
    progress = Progress(100, clock)
    for step in range(1, 51):
        clock.advance(2.0)
        line = live_line(progress.stepped(step=step, loss=0.5, images=4), columns=None)
    assert line == f"[{'#' * 12}{'.' * 12}] step 50/100  loss 0.5000  1:40 left  2.0 images/s"
    for step in range(51, 51 + WINDOW_STEPS):
        clock.advance(0.5)
        line = live_line(progress.stepped(step=step, loss=0.5, images=4), columns=None)
    assert line == f"[{'#' * 24}] step 100/100  loss 0.5000  0:00 left  8.0 images/s"
    assert progress.step_s() == pytest.approx(0.5)


def test_a_resumed_run_counts_its_own_steps():
    clock = FakeClock()
    progress = Progress(100, clock)
    progress.stepped(step=91, loss=0.5, images=1)
    clock.advance(3.0)
    assert progress.stepped(step=92, loss=0.5, images=1).seconds_left == 24.0
    assert progress.step_s() == 3.0


def test_the_age_of_the_last_commit_grows():
    clock = FakeClock()
    progress = Progress(100, clock, committed=(40, clock.unix_s() - 5.0))
    assert progress.stepped(step=41, loss=0.5, images=1).commit_age_s == 5.0
    progress.committed = (60, clock.unix_s())
    clock.advance(61.0)
    assert live_line(progress.stepped(step=62, loss=0.5, images=1), columns=None).endswith("  commit 60, 1:01 ago")


FULL = Stand(
    step=1234, total_steps=15_000, loss=0.1234, seconds_left=3723, images_per_s=9.5, committed_step=1000, commit_age_s=92
)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (120, f"[#{'.' * 23}] step 1234/15000  loss 0.1234  1:02:03 left  9.5 images/s  commit 1000, 1:32 ago"),
        (100, f"[#{'.' * 23}] 1234/15000  loss 0.1234  1:02:03 left  9.5 images/s  commit 1:32 ago"),
        (79, "[........] 1234/15000  loss 0.1234  1:02:03 left  9.5 images/s  commit 1:32 ago"),
        (70, "1234/15000  loss 0.1234  1:02:03 left  9.5 images/s  commit 1:32 ago"),
        (50, "[..........] 1234/15000  loss 0.1234  1:02:03 left"),
        (30, "1234/15000  loss 0.1234"),
        (7, "1234/15"),
    ],
)
def test_a_line_fits_its_terminal(columns, line):
    assert live_line(FULL, columns=columns) == line
    assert len(line) <= columns


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00"), (360_000, "100:00:00")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text

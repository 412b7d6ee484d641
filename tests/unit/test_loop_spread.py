"""Ranks that each hold a part of the state: threads whose steps wait for one another, each with a loop, a clock and a parent's
channel of its own. They must save and draw after the same steps, whatever only rank 0 knows."""

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from sdjob.core.channel import Channel
from sdjob.link import Link
from sdjob.loop import Loop, LoopPlan, Saver, SaveWord, StepMetrics

RANKS, PATIENCE_S = 3, 60.0


@dataclass
class Gathering:
    """What travels with a step: everybody's words, added up."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(RANKS, timeout=PATIENCE_S))
    said: dict[tuple[int, int], tuple[bool, SaveWord]] = field(default_factory=dict)
    parts: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """What the ranks but the first have told the parent of: a save is over once all parts are there."""

    def gather(self, rank, step, *, stop, word):
        self.said[step, rank] = (stop, word)
        self.barrier.wait()
        words = [self.said[step, rank] for rank in range(RANKS)]
        return any(stop for stop, _ in words), SaveWord(sum(word for _, word in words))


@dataclass
class Result:
    metrics: StepMetrics
    is_here: bool

    def read(self):
        return self.metrics


@dataclass
class Part:
    rank: int
    fails: bool

    def write_into(self, folder: Path) -> None:
        if self.fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        (folder / f"part-{self.rank}").write_text("its rows")


@dataclass
class Rank:
    number: int
    gathering: Gathering
    is_here: bool
    seconds_a_step: float
    fails: bool = False
    asked_at: int | None = None
    answered: Callable[[], None] | None = None
    """Waits for the parent's answer to the save in flight, so that a test need not be slower than it."""

    clock: FakeClock = field(default_factory=FakeClock)
    drawn: list[str] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    messages: list[dict] = field(default_factory=list)

    def step(self, batch, *, step, stop_wanted, save_word):
        if self.answered is not None:
            self.answered()
        self.clock.advance(self.seconds_a_step)
        asked = stop_wanted or step == self.asked_at
        stop, word = self.gathering.gather(self.number, step, stop=asked, word=save_word)
        told = StepMetrics(loss=1.0, grad_norm=1.0, learning_rate=0.1, stop=stop, save_word=word)
        return Result(told, self.is_here)

    def expect_saves(self):
        """Has room."""

    def snapshot(self, *, step, metrics):
        self.taken.append(step)
        return Part(self.number, self.fails)

    def validate(self, folder):
        assert folder.is_dir()
        self.drawn.append(folder.name)


def train(ranks, scratch, *, holds_until=None, total=20, **plan):
    """The ranks' loops to their end. `holds_until`: the parent leaves rank 0's first save unanswered up to that step."""
    threads = []
    for rank in ranks:
        child_read, parent_write = os.pipe()
        parent_read, child_write = os.pipe()
        link = Link(Channel(read_fd=child_read, write_fd=child_write), on_parent_gone=lambda: None)
        parent = Channel(read_fd=parent_read, write_fd=parent_write)
        threads.append(threading.Thread(target=listen, args=(rank, parent, holds_until)))
        loop_plan = LoopPlan(
            **{"start_step": 0, "save_every_steps": None, "save_every_seconds": None, "validate_every_steps": None, **plan},
            total_steps=total, global_batch=1, scratch=scratch, num_ranks=RANKS, is_main=rank.number == 0, is_spread=True,
        )  # fmt: skip
        threads.append(threading.Thread(target=run, args=(rank, loop_plan, link, child_write, total)))
        if holds_until is None:
            rank.answered = link.wait_for_save
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the ranks wait for one another in vain"


def run(rank, plan, link, child_write, total):
    try:
        link.start()
        ending = Loop(rank, plan, link, rank.clock).run(range(total))
        rank.messages.append({"event": ending})
    except BaseException:
        rank.gathering.barrier.abort()
        raise
    finally:
        os.close(child_write)


def listen(rank, channel, holds_until):
    for message in channel:
        rank.messages.append(message)
        if message["event"] == "part":
            rank.gathering.parts.release()
        if rank.number == 0 and message["event"] in ("snapshot", "save-failed"):
            assert all(rank.gathering.parts.acquire(timeout=PATIENCE_S) for _ in range(RANKS - 1))
            if holds_until is None:
                channel.send({"event": "save-over"})
        if message["event"] == "metrics" and message["step"] == holds_until:
            channel.send({"event": "save-over"})
            holds_until = None


def make_ranks(*, is_here=True, **of_rank):
    gathering = Gathering()
    speeds = {0: 1.0, 1: 0.0, 2: 100.0}  # of the clocks: only the first one's counts
    return [
        Rank(number, gathering, is_here, speeds[number], **{name: values.get(number) for name, values in of_rank.items()})
        for number in range(RANKS)
    ]


def events(rank, *kinds):
    return [(m["event"], m.get("step")) for m in rank.messages if m["event"] in kinds]


@pytest.mark.parametrize("is_here", [True, False])
def test_rank_0s_clock_decides_for_all(tmp_path, is_here):
    ranks = make_ranks(is_here=is_here)
    train(ranks, tmp_path, save_every_seconds=4.0)
    assert ranks[0].taken == ranks[1].taken == ranks[2].taken
    # Seen before the fifth step, heard with it, obeyed after the next; and so on from there.
    assert ranks[0].taken[:3] == [6, 12, 18]
    assert ranks[0].taken[-1] == 20
    assert events(ranks[0], "snapshot", "part") == [("snapshot", step) for step in ranks[0].taken]
    for rank in ranks[1:]:
        assert events(rank, "snapshot", "part", "metrics", "samples") == [("part", step) for step in rank.taken]
    assert {path.name for path in (tmp_path / "snapshots" / "00000006").iterdir()} == {"part-0", "part-1", "part-2"}


@pytest.mark.parametrize("is_here", [True, False])
def test_a_save_that_rank_0_cannot_begin_is_skipped_by_all(tmp_path, is_here):
    ranks = make_ranks(is_here=is_here)
    train(ranks, tmp_path, save_every_steps=3, holds_until=10)
    assert ranks[0].taken == ranks[1].taken == ranks[2].taken
    skipped = [step for _, step in events(ranks[0], "save-skipped")]
    assert skipped[:2] == [6, 9]
    assert not set(skipped) & set(ranks[0].taken)
    assert sorted(skipped + ranks[0].taken) == [3, 6, 9, 12, 15, 18, 20]
    assert not events(ranks[1], "save-skipped")


@pytest.mark.parametrize("asked", range(RANKS))
def test_a_stop_of_any_rank_is_saved_by_all(tmp_path, asked):
    ranks = make_ranks(asked_at={asked: 4})
    train(ranks, tmp_path, save_every_steps=100)
    assert [rank.taken for rank in ranks] == [[6]] * RANKS
    assert all({"event": "stopped"} in rank.messages for rank in ranks)


def test_a_rank_whose_part_fails_says_so_and_trains_on(tmp_path):
    ranks = make_ranks(fails={2: True})
    train(ranks, tmp_path, save_every_steps=10)
    assert [rank.taken for rank in ranks] == [[10, 20]] * RANKS
    [*told] = [m for m in ranks[2].messages if m["event"] == "part"]
    assert [message["step"] for message in told] == [10, 20]
    assert all("No space left" in message["why"] for message in told)
    assert all("why" not in m for m in ranks[1].messages if m["event"] == "part")
    assert {"event": "finished"} in ranks[2].messages


def test_all_draw_and_one_tells(tmp_path):
    ranks = make_ranks()
    train(ranks, tmp_path, validate_every_steps=8)
    assert [rank.drawn for rank in ranks] == [["00000008", "00000016", "00000020"]] * RANKS
    assert events(ranks[0], "samples") == [("samples", 8), ("samples", 16), ("samples", 20)]
    assert not events(ranks[1], "samples")


@dataclass
class Broken:
    def write_into(self, folder):
        raise ZeroDivisionError("a fault")


def test_a_fault_in_writing_ends_the_training_at_the_next_save_though_the_first_is_never_answered(tmp_path):
    plan = LoopPlan(0, 20, 1, 5, None, None, tmp_path, num_ranks=1, is_main=True)
    link = Link(Channel(read_fd=-1, write_fd=-1), on_parent_gone=lambda: None)
    link._idle.set()
    saver = Saver(plan, link, FakeClock(), last_step=0, last_time_s=0.0)
    metrics = StepMetrics(loss=1.0, grad_norm=1.0, learning_rate=0.1, stop=False)
    saver.save(Broken, step=5, metrics=metrics, must=False)
    saver._writing.join()
    with pytest.raises(ZeroDivisionError):
        saver.save(lambda: Part(0, fails=False), step=10, metrics=metrics, must=False)

"""A Trainer of plain numbers and the parent's end of a real channel, for tests of the loop."""

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from fakes.clock import FakeClock
from sdjob.core.channel import Channel
from sdjob.link import Link
from sdjob.loop import Loop, LoopPlan, StepMetrics


@dataclass
class Result:
    metrics: StepMetrics
    is_here: bool = False

    def read(self) -> StepMetrics:
        return self.metrics


@dataclass
class State:
    value: int

    def write_into(self, folder: Path) -> None:
        (folder / "state.json").write_text(json.dumps(self.value))


@dataclass
class SumTrainer:
    """Its state is the sum of the batches that it has seen."""

    total: int = 0
    peer_stops_at: int | None = None
    stop_at: int | None = None
    link: Link | None = None
    validated: list[str] = field(default_factory=list)
    measured: list[int] = field(default_factory=list)
    fail_writing: Exception | None = None
    seconds_a_step: float = 0.0
    overflow_at: int | None = None
    memory_mib: int | None = None
    is_here: bool = False
    clock: FakeClock = field(default_factory=FakeClock)
    expected_after: list[int] = field(default_factory=list)
    """How many steps it had made when it was told that saves may come."""

    steps: int = 0

    def step(self, batch: int, *, step: int, stop_wanted: bool) -> Result:
        self.total += batch
        self.steps += 1
        self.clock.advance(self.seconds_a_step)
        if step == self.stop_at:
            self.link._stop.set()
        stop = stop_wanted or step == self.peer_stops_at
        overflows = int(step == self.overflow_at)
        told = {"overflows": overflows, "device_memory_mib": self.memory_mib}
        return Result(StepMetrics(loss=float(step), grad_norm=1.0, learning_rate=0.1, stop=stop, **told), self.is_here)

    def expect_saves(self) -> None:
        self.expected_after.append(self.steps)

    def snapshot(self, *, step: int, metrics: StepMetrics) -> State:
        assert metrics.loss == step - 1, "the snapshot's own step's metrics"
        if self.fail_writing:
            return Failing(self.fail_writing)
        return State(self.total)

    def validate(self, folder: Path) -> None:
        self.validated.append(folder.name)

    def measure(self) -> float:
        self.measured.append(self.total)
        self.clock.advance(100.0)
        return float(self.total)


@dataclass
class Failing:
    error: Exception

    def write_into(self, folder: Path) -> None:
        raise self.error


class Parent:
    """Answers every snapshot at once, unless told to hold its answers back."""

    def __init__(self, *, answer: bool = True) -> None:
        child_read, parent_write = os.pipe()
        parent_read, child_write = os.pipe()
        self.child = Channel(read_fd=child_read, write_fd=child_write)
        self.channel = Channel(read_fd=parent_read, write_fd=parent_write)
        self.messages: list[dict] = []
        self.answer = answer
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        for message in self.channel:
            self.messages.append(message)
            if self.answer and message["event"] in ("snapshot", "save-failed"):
                self.channel.send({"event": "save-over"})

    def hear(self, event: str) -> list[dict]:
        return [m for m in self.messages if m["event"] == event]

    def close(self) -> None:
        os.close(self.child._write_fd)
        self.thread.join()
        self.channel.close()


def run(trainer, parent, tmp_path, *, total=10, start=0, every=3, every_s=None, validate=None, measure=None, ranks=1, main=True):
    gone = threading.Event()
    link = Link(parent.child, on_parent_gone=gone.set)
    trainer.link = link
    link.start()
    plan = LoopPlan(
        start_step=start, total_steps=total, global_batch=4, save_every_steps=every, save_every_seconds=every_s,
        validate_every_steps=validate, scratch=tmp_path, num_ranks=ranks, is_main=main, measure_every_steps=measure,
    )  # fmt: skip
    ending = Loop(trainer, plan, link, trainer.clock, trainer.measure if measure else None).run(range(start, total))
    link.send("end")
    return ending


def steps_of(parent, event):
    return [m["step"] for m in parent.hear(event)]


def wait_for_end(parent):
    while not parent.hear("end"):
        threading.Event().wait(0.01)

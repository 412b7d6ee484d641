"""The only training loop: it knows steps, saves, validation and stop requests, and nothing of tensors.

A backend supplies a Trainer; the parent process is reached through a Link. Every rank runs this loop; only rank 0 saves
and validates, and all ranks stop after the same step, because the stop flag travels with each step's reduced metrics.

Where the state is spread over the ranks, all of them save and validate, after the same steps: what only rank 0 knows, its
clock and whether the save before is over, travels in the same way.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from safetensors import SafetensorError

from sdjob.ckpt.policy import is_time, should_save
from sdjob.core.clock import Clock
from sdjob.link import Link

Batch = TypeVar("Batch")
Batch_contra = TypeVar("Batch_contra", contravariant=True)


class SaveWord(IntFlag):
    """What rank 0 says of saves with each step, where the state is spread over the ranks."""

    NOTHING = 0
    DUE = 1
    """It is time for one, by the clock."""

    BUSY = 2
    """The one before is not over."""


@dataclass(frozen=True)
class StepMetrics:
    """Of one optimizer step, over all ranks."""

    loss: float
    grad_norm: float
    learning_rate: float
    stop: bool
    """True where any rank was asked to stop."""

    overflows: int = 0
    """fp16 steps in a row, this one included, whose gradients overflowed: such a step changes no weight."""

    device_memory_mib: int | None = None
    """The most that was in use so far on this rank's first device; None where the device does not tell."""

    save_word: SaveWord = SaveWord.NOTHING
    """Rank 0's, from before the step."""


class StepResult(Protocol):
    @property
    def is_here(self) -> bool:
        """Reading waits for nothing: on a CPU a step is over when it returns."""
        ...

    def read(self) -> StepMetrics:
        """Waits for the device. The loop then asks one step late, so that the device never waits for the host."""
        ...


class Snapshot(Protocol):
    """A copy of the state between two steps, on the host."""

    def write_into(self, folder: Path) -> None:
        """Runs beside the training, in another thread."""
        ...


class Trainer(Protocol[Batch_contra]):
    def step(self, batch: Batch_contra, *, step: int, stop_wanted: bool, save_word: SaveWord = SaveWord.NOTHING) -> StepResult:
        """One optimizer step: every micro-batch, the reduction over ranks, clipping, update, EMA."""
        ...

    def expect_saves(self) -> None:
        """Called once, after the first step, where saves may come before the last: room for them can be made beside the next."""
        ...

    def snapshot(self, *, step: int, metrics: StepMetrics) -> Snapshot: ...

    def validate(self, folder: Path) -> None:
        """Writes the validation pictures of the present weights."""
        ...


@dataclass(frozen=True)
class LoopPlan:
    start_step: int
    total_steps: int
    global_batch: int
    save_every_steps: int | None
    save_every_seconds: float | None
    validate_every_steps: int | None
    scratch: Path
    num_ranks: int
    is_main: bool
    """Rank 0: the one that saves, validates and reports."""

    measure_every_steps: int | None = None
    """Between two losses on held-out pictures, of all ranks together; one comes before the first step, and one after the last."""

    also_save_every_steps: tuple[int, ...] = ()
    """What is to be published on the way is committed first."""

    is_spread: bool = False
    """Each rank holds a part of the state: all of them save, and validate."""

    @property
    def saves(self) -> bool:
        return self.is_main or self.is_spread


@dataclass
class Saver:
    """At most one save in flight; one that comes too early is skipped and said so: training never waits for storage."""

    plan: LoopPlan
    link: Link
    clock: Clock
    last_step: int
    last_time_s: float
    heard: SaveWord = SaveWord.NOTHING
    """Rank 0's latest word; None is said, and none is heeded, where the state is not spread."""

    _writing: threading.Thread | None = None
    _failure: BaseException | None = None

    def due(self, step: int) -> bool:
        return self.plan.saves and should_save(
            step,
            total_steps=self.plan.total_steps,
            every_steps=self.plan.save_every_steps,
            last_saved_step=self.last_step,
            seconds_since_save=self.clock.monotonic_s() - self.last_time_s,
            every_seconds=self._every_seconds_told() if self.plan.is_spread else self._every_seconds(),
            also_multiples_of=self.plan.also_save_every_steps,
        )

    def may_save_before_end(self, step: int) -> bool:
        """After `step` steps: whether a step to come, but the last, may be saved."""
        multiples = [*self.plan.also_save_every_steps, *filter(None, [self.plan.save_every_steps])]
        on_step = any((step // multiple + 1) * multiple < self.plan.total_steps for multiple in multiples)
        return self.plan.saves and (on_step or self._every_seconds() is not None)

    def _every_seconds(self) -> float | None:
        return self.link.save_every_seconds or self.plan.save_every_seconds

    def _every_seconds_told(self) -> float | None:
        """For all ranks alike: no clock but rank 0's counts."""
        return 0.0 if SaveWord.DUE in self.heard else None

    def word(self) -> SaveWord:
        """What the other ranks cannot know."""
        if not self.plan.is_main:
            return SaveWord.NOTHING
        due = is_time(self.clock.monotonic_s() - self.last_time_s, every_seconds=self._every_seconds())
        return (SaveWord.DUE if due else SaveWord.NOTHING) | (SaveWord.BUSY if self.link.saving else SaveWord.NOTHING)

    @property
    def is_busy(self) -> bool:
        return SaveWord.BUSY in self.heard if self.plan.is_spread else self.link.saving

    def save(self, take: Callable[[], Snapshot], *, step: int, metrics: StepMetrics, must: bool) -> None:
        self.raise_failure()
        if must:
            self.finish()
        elif self.is_busy:
            self._skip(step)
            return
        started_s = self.clock.monotonic_s()
        snapshot = take()
        if self.plan.is_main:
            self.link.hold_save()
        self.last_step, self.last_time_s, self.heard = step, self.clock.monotonic_s(), SaveWord.NOTHING
        stall_s = self.last_time_s - started_s
        self._writing = threading.Thread(target=self._write, args=(snapshot, step, metrics, stall_s), name="snapshot")
        self._writing.start()

    def _skip(self, step: int) -> None:
        """Its turn is over: not another word at each of the next steps."""
        self.last_time_s, self.heard = self.clock.monotonic_s(), SaveWord.NOTHING
        if self.plan.is_main:
            self.link.send("save-skipped", step=step, why="the save before it is still on its way to storage")

    def _write(self, snapshot: Snapshot, step: int, metrics: StepMetrics, stall_s: float) -> None:
        folder = self.plan.scratch / "snapshots" / f"{step:08d}"
        try:
            folder.mkdir(parents=True, exist_ok=self.plan.is_spread)
            snapshot.write_into(folder)
        except (OSError, SafetensorError) as error:
            # A full scratch disk costs this save, not the run: the next one may find room. safetensors has its own word for it.
            self._tell("save-failed", step=step, folder=str(folder), why=str(error), stall_s=stall_s)
        except BaseException as error:  # raised again in the training thread
            self._failure = error
        else:
            fields = {"loss": metrics.loss, "grad_norm": metrics.grad_norm, "stall_s": stall_s}
            self._tell("snapshot", step=step, folder=str(folder), **fields)

    def _tell(self, event: str, *, step: int, **fields: object) -> None:
        """Each rank tells the parent of its own part, so that nobody waits for the others here."""
        if self.plan.is_main:
            self.link.send(event, step=step, **fields)
        else:
            self.link.send("part", step=step, **{name: fields[name] for name in ("why",) if name in fields})

    def finish(self) -> None:
        """Waits until the save in flight, if any, has been committed or given up by the parent."""
        if self._writing is not None:
            self._writing.join()
        self.raise_failure()
        self.link.wait_for_save()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


Ending = Literal["finished", "stopped"]


@dataclass
class Loop(Generic[Batch]):
    trainer: Trainer[Batch]
    plan: LoopPlan
    link: Link
    clock: Clock
    measure: Callable[[], float] | None = None
    """The loss on held-out pictures of the present weights; all ranks call it at the same step."""

    saver: Saver = field(init=False)

    def __post_init__(self) -> None:
        self.saver = Saver(self.plan, self.link, self.clock, self.plan.start_step, self.clock.monotonic_s())

    def run(self, batches: Iterable[Batch]) -> Ending:
        """Trains through `batches`, one of each step from `start_step` on; returns after the last save was handed over."""
        if self.plan.start_step == self.plan.total_steps:
            self._measure_at_start()
            return self._draw_last()
        unread: tuple[int, StepResult, float] | None = None
        stop = False
        self._measure_at_start()
        waited_from_s = self.clock.monotonic_s()
        for step, batch in enumerate(batches, start=self.plan.start_step):
            data_wait_s = self.clock.monotonic_s() - waited_from_s
            result = self._step(batch, step=step)
            if step == self.plan.start_step and self.saver.may_save_before_end(step):
                self.trainer.expect_saves()
            if unread:
                stop = self._report(unread).stop
            # Alone there is nobody to agree with: stop after this step and not after the next.
            stop = stop or (self.plan.num_ranks == 1 and self.link.stop_wanted)
            unread = (step, result, data_wait_s)
            done = step + 1
            if stop or self.saver.due(done) or self._validation_due(done) or self._measure_due(done):
                metrics = self._report(unread, measured=not stop and self._measure_due(done))
                self._pause(done, metrics, stop=stop)
                if stop:
                    return self._end(done)
                # Read early by the ranks that pause; all obey it after the next step, like those that read it then.
                stop, unread = metrics.stop, None
            elif result.is_here:
                stop, unread = self._report(unread).stop, None
            waited_from_s = self.clock.monotonic_s()
        if unread:
            self._report(unread)
        return self._end(self.plan.total_steps)

    def _step(self, batch: Batch, *, step: int) -> StepResult:
        if not self.plan.is_spread:
            return self.trainer.step(batch, step=step, stop_wanted=self.link.stop_wanted)
        return self.trainer.step(batch, step=step, stop_wanted=self.link.stop_wanted, save_word=self.saver.word())

    def _pause(self, done: int, metrics: StepMetrics, *, stop: bool) -> None:
        """Validation before the save, so that what is committed has also been looked at."""
        if self.plan.saves and not stop and self._validation_due(done):
            self._validate(done)
        if self.plan.saves and (stop or self.saver.due(done)):
            last = stop or done == self.plan.total_steps
            self.saver.save(lambda: self.trainer.snapshot(step=done, metrics=metrics), step=done, metrics=metrics, must=last)

    def _draw_last(self) -> Ending:
        """Every step was committed before, but a stop request had kept the last one's pictures from being drawn."""
        if self.plan.saves and self._validation_due(self.plan.total_steps):
            self._validate(self.plan.total_steps)
        return "finished"

    def _end(self, done: int) -> Ending:
        self.saver.finish()
        return "finished" if done == self.plan.total_steps else "stopped"

    def _measure_at_start(self) -> None:
        """What all training begins with; and the end, which a stop request may have kept from being measured."""
        if self._measure_due(self.plan.start_step) and self.plan.start_step in {0, self.plan.total_steps}:
            self._measured(self.plan.start_step)

    def _measure_due(self, done: int) -> bool:
        every = self.plan.measure_every_steps
        return self.measure is not None and every is not None and (done % every == 0 or done == self.plan.total_steps)

    def _measured(self, done: int) -> float:
        assert self.measure is not None
        started_s = self.clock.monotonic_s()
        loss = self.measure()
        if self.plan.is_main:
            self.link.send("held-out", step=done, loss=loss, seconds=self.clock.monotonic_s() - started_s)
        return loss

    def _validation_due(self, done: int) -> bool:
        every = self.plan.validate_every_steps
        return every is not None and (done % every == 0 or done == self.plan.total_steps)

    def _validate(self, done: int) -> None:
        started_s = self.clock.monotonic_s()
        folder = self.plan.scratch / "samples" / f"{done:08d}"
        folder.mkdir(parents=True, exist_ok=self.plan.is_spread)
        self.trainer.validate(folder)
        if self.plan.is_main:
            self.link.send("samples", step=done, folder=str(folder), seconds=self.clock.monotonic_s() - started_s)

    def _report(self, unread: tuple[int, StepResult, float], *, measured: bool = False) -> StepMetrics:
        """With the loss on held-out pictures where it is `measured` after this step, so that a step's figures stand together."""
        step, result, data_wait_s = unread
        metrics = result.read()
        self.saver.heard = metrics.save_word
        # When it was, by who did it: the parent may hear of it later, while it waits for a store.
        told = {"time_s": round(self.clock.unix_s(), 3), "data_wait_s": data_wait_s, "images": self.plan.global_batch}
        held_out_loss = self._measured(step + 1) if measured else None
        if self.plan.is_main:
            fields = {"loss": metrics.loss, "grad_norm": metrics.grad_norm, "learning_rate": metrics.learning_rate}
            if held_out_loss is not None:
                fields["held_out_loss"] = held_out_loss
            if metrics.overflows:
                fields["overflows"] = metrics.overflows
            if metrics.device_memory_mib is not None:
                fields["device_memory_mib"] = metrics.device_memory_mib
            self.link.send("metrics", step=step + 1, **told, **fields)
        return metrics

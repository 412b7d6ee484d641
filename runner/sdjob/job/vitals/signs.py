"""What an attempt's own records say of it, kept at hand for whoever asks: a frozen state, made anew by each record."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sdjob.ckpt.history import LoggedCommit
from sdjob.core.clock import Clock
from sdjob.spec.checkpoint import drawn_every_steps
from sdjob.spec.job import JobSpec, measured_every_steps

Phase = Literal["staging", "starting", "training", "publishing", "ended"]
PHASES: tuple[Phase, ...] = ("staging", "starting", "training", "publishing", "ended")

# A step that takes longer than any before is not a hang: an evaluation of the host, a page of weights, a slow neighbour.
QUIET_S = 30 * 60.0
QUIET_STEPS = 20  # or so many times the slowest step, where steps are slow


@dataclass(frozen=True, kw_only=True)
class Signs:
    """Of one process; what is not known yet is None."""

    phase: Phase = "staging"
    attempt: int | None = None
    step: int | None = None
    target_step: int | None = None
    loss: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    images_per_s: float | None = None
    device_memory_mib: float | None = None
    num_images: int = 0
    data_wait_s: float = 0.0
    committed_step: int | None = None
    committed_unix_s: float | None = None
    commit_s: float | None = None
    num_commits: int = 0
    committed_bytes: int = 0
    stall_s: float = 0.0
    num_missed_saves: int = 0
    stepped_s: float | None = None
    """On the monotonic clock: when the last step was over."""

    slowest_step_s: float = 0.0


@dataclass
class Vitals:
    """Records come from the training's threads, readers from others: each takes the state as it is and holds up nobody."""

    job: JobSpec
    clock: Clock
    signs: Signs = field(default_factory=Signs)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claimed(self, attempt: int, *, newest: LoggedCommit | None) -> None:
        """The run is this attempt's, and goes on from its newest commit, whoever made that."""
        with self._lock:
            self.signs = replace(self.signs, attempt=attempt)
            if newest is not None:
                found = {"step": newest.step, "committed_step": newest.step, "committed_unix_s": newest.time_s}
                self.signs = replace(self.signs, **found)

    def note(self, record: Mapping[str, Any]) -> None:
        """A record as it goes into the ledger."""
        with self._lock:
            self.signs = after(self.signs, record, now_s=self.clock.monotonic_s())

    def trouble(self) -> str | None:
        """Why the training seems to hang; None while it goes on, and in all else that an attempt does."""
        every = {
            "drawn_every_steps": drawn_every_steps(self.job.validation),
            "measured_every_steps": measured_every_steps(self.job),
        }
        return hang(self.signs, now_s=self.clock.monotonic_s(), **every)


def after(signs: Signs, record: Mapping[str, Any], *, now_s: float) -> Signs:
    kind = record.get("kind")
    if kind is None:
        return stepped(signs, record, now_s=now_s)
    match kind:
        case "train":
            return replace(signs, phase="starting", step=record["start_step"], target_step=record["total_steps"])
        case "commit":
            return committed(signs, record)
        case "save-failed" | "save-skipped" | "save-missed":
            return replace(signs, num_missed_saves=signs.num_missed_saves + 1)
        case "end":
            return replace(signs, phase="ended")
        case _:
            return signs


def stepped(signs: Signs, record: Mapping[str, Any], *, now_s: float) -> Signs:
    took_s = now_s - signs.stepped_s if signs.stepped_s is not None else 0.0
    return replace(
        signs,
        phase="training",
        step=record["step"],
        loss=record.get("loss"),
        grad_norm=record.get("grad_norm"),
        learning_rate=record.get("learning_rate"),
        images_per_s=record.get("images_per_s"),
        device_memory_mib=record.get("device_memory_mib"),
        num_images=signs.num_images + record.get("images", 0),
        data_wait_s=signs.data_wait_s + record.get("data_wait_s", 0.0),
        stepped_s=now_s,
        slowest_step_s=max(signs.slowest_step_s, took_s),
    )


def committed(signs: Signs, record: Mapping[str, Any]) -> Signs:
    return replace(
        signs,
        phase="publishing" if record["step"] == signs.target_step else signs.phase,
        committed_step=record["step"],
        committed_unix_s=record["time_s"],
        commit_s=record["seconds"],
        num_commits=signs.num_commits + 1,
        committed_bytes=signs.committed_bytes + record["size_bytes"],
        stall_s=signs.stall_s + record["stall_s"],
    )


def hang(signs: Signs, *, now_s: float, drawn_every_steps: int | None, measured_every_steps: int | None = None) -> str | None:
    """Only steps are judged, and only between two of them: staging, compiling, drawing, saving and publishing may wait for a
    network or a store for hours, and nobody gains by an end of them."""
    if signs.phase != "training" or signs.stepped_s is None or signs.step is None or signs.step == signs.target_step:
        return None
    if drawn_every_steps is not None and signs.step % drawn_every_steps == 0:
        return None
    # A step after which the held-out loss is computed is told with it.
    if measured_every_steps is not None and ((signs.step + 1) % measured_every_steps == 0 or signs.step + 1 == signs.target_step):
        return None
    quiet_s = now_s - signs.stepped_s
    if quiet_s <= max(QUIET_S, QUIET_STEPS * signs.slowest_step_s):
        return None
    slowest = f"the slowest before took {signs.slowest_step_s:.1f} s"
    return f"no step since step {signs.step}, {round(quiet_s / 60)} minutes ago; {slowest}"

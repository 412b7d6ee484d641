"""When to save and what to keep: pure, so that every rule is a table in a test."""

from collections.abc import Sequence

SHARE_OF_NOTICE = 0.7  # what is left of a notice also pays for the manifest, the slot, and bandwidth that falls short


def should_save(
    step: int,
    *,
    total_steps: int,
    every_steps: int | None,
    last_saved_step: int,
    seconds_since_save: float,
    every_seconds: float | None,
    also_multiples_of: Sequence[int] = (),
) -> bool:
    """Whether the state after `step` optimizer steps is to be committed. The last step always is; no step is twice."""
    if step <= last_saved_step:
        return False
    if step >= total_steps:
        return True
    multiples = (*also_multiples_of, *([every_steps] if every_steps is not None else []))
    on_step = any(step % multiple == 0 for multiple in multiples)
    return on_step or is_time(seconds_since_save, every_seconds=every_seconds)


def is_time(seconds_since_save: float, *, every_seconds: float | None) -> bool:
    return every_seconds is not None and seconds_since_save >= every_seconds


def steps_to_retire(live_steps: Sequence[int], *, keep: int, keep_every: int | None, final_step: int | None) -> list[int]:
    """The steps that may go, ascending: all but the last `keep` (at least one), every `keep_every`-th, and the final one."""
    steps = sorted(set(live_steps))
    kept = set(steps[-max(keep, 1) :])
    kept.update(step for step in steps if keep_every is not None and step % keep_every == 0)
    return [step for step in steps if step not in kept and step != final_step]


def fits_notice(size_bytes: int, *, bytes_per_s: float, seconds_left: float) -> bool:
    """Whether an upload can be expected to end before the machine is taken away."""
    return bytes_per_s > 0 and size_bytes / bytes_per_s <= SHARE_OF_NOTICE * seconds_left

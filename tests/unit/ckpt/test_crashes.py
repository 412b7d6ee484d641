"""Death at every store call, and a second attempt at every store call: all of them, one by one.

Oracle: the log is one total order without a gap, nothing stands past a newer claim, every live commit is whole with the
digest of an uninterrupted run, and no commit that was acknowledged is lost.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.memory_store import Call, Crash, Hook, MemoryStore, busy, crash_at
from fakes.runs import STEPS, check_invariants, commit_log, digest_of, play
from sdjob.core.errors import FencedError


def calls_of_a_whole_run(folder: Path) -> int:
    store = MemoryStore()
    play(commit_log(store), folder, acknowledged=[])
    return len(store.calls)


def after_the_crash(objects: dict[str, bytes], folder: Path, *, acknowledged: list[int]) -> None:
    """A new attempt ends the run as if nothing had happened, and has lost nothing that was acknowledged."""
    newest = max((commit.step for commit in check_invariants(objects, folder=folder).live), default=0)
    assert newest >= max(acknowledged, default=0)
    store = MemoryStore(objects)
    assert play(commit_log(store), folder, acknowledged=acknowledged) == digest_of(STEPS[-1], folder=folder / "states")
    history = check_invariants(objects, folder=folder)
    assert history.done is not None
    assert history.done.digest == digest_of(STEPS[-1], folder=folder / "states")


def crash(objects: dict[str, bytes], folder: Path, *, acknowledged: list[int], when: str, number: int) -> bool:
    """Whether an attempt that dies at this call got as far as the call."""
    store = MemoryStore(objects)
    hooks: list[Hook] = store.before if when == "before" else store.after
    hooks.append(crash_at(number))
    try:
        play(commit_log(store), folder, acknowledged=acknowledged)
    except Crash:
        return True
    return False


@pytest.mark.parametrize("when", ["before", "after"])
def test_death_at_every_call(tmp_path, when):
    total = calls_of_a_whole_run(tmp_path)
    assert total > 40
    for number in range(total):
        objects: dict[str, bytes] = {}
        acknowledged: list[int] = []
        assert crash(objects, tmp_path, acknowledged=acknowledged, when=when, number=number)
        after_the_crash(objects, tmp_path, acknowledged=acknowledged)


def test_death_at_pairs_of_calls(tmp_path):
    """The second death strikes the attempt that recovers from the first. A grid: the whole product takes minutes."""
    total = calls_of_a_whole_run(tmp_path)
    for first in range(0, total, 5):
        for second in range(first % 7, total, 7):
            objects: dict[str, bytes] = {}
            acknowledged: list[int] = []
            crash(objects, tmp_path, acknowledged=acknowledged, when="after", number=first)
            crash(objects, tmp_path, acknowledged=acknowledged, when="before", number=second)
            after_the_crash(objects, tmp_path, acknowledged=acknowledged)


def is_fenced(store: MemoryStore, folder: Path, *, acknowledged: list[int]) -> bool:
    try:
        play(commit_log(store), folder, acknowledged=acknowledged, host="zombie")
    except FencedError:
        return True
    return False


def interrupt(number: int, action: Callable[[], None]) -> Hook:
    def hook(call: Call) -> None:
        if call.number == number:
            action()

    return hook


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("other_ends", [True, False], ids=["the other ends", "the other is killed"])
def test_a_second_attempt_at_every_call(tmp_path, when, other_ends):
    """The first attempt sleeps at one call while a second one runs, then wakes up and goes on as a zombie."""
    fenced = 0
    for number in range(calls_of_a_whole_run(tmp_path)):
        objects: dict[str, bytes] = {}
        committed: list[int] = []

        def second(objects: dict[str, bytes] = objects, committed: list[int] = committed) -> None:
            other = MemoryStore(objects)
            if not other_ends:
                other.before.append(crash_at(25))
            try:
                play(commit_log(other), tmp_path, acknowledged=committed, host="other")
            except Crash:
                assert not other_ends

        zombie = MemoryStore(objects)
        hooks: list[Hook] = zombie.before if when == "before" else zombie.after
        hooks.append(interrupt(number, second))
        fenced += is_fenced(zombie, tmp_path, acknowledged=committed)
        history = check_invariants(objects, folder=tmp_path)
        assert max((commit.step for commit in history.live), default=0) >= max(committed, default=0)
        after_the_crash(objects, tmp_path, acknowledged=committed)
    assert fenced > 25  # at all calls but those around the claim and after the end


def test_an_attempt_that_is_stopped_at_every_call_by_trouble_loses_nothing(tmp_path):
    """One error a call, cleared by the retry: the run ends as if there had been none, with as many slots."""
    clean = MemoryStore()
    play(commit_log(clean), tmp_path, acknowledged=[])
    slots = [key for key in clean.objects if key.startswith("log/")]
    for number in range(len(clean.calls)):
        for when in ("before", "after"):
            store = MemoryStore()

            def trouble(call: Call, number: int = number) -> None:
                if call.number == number:
                    raise busy()

            (store.before if when == "before" else store.after).append(trouble)
            play(commit_log(store), tmp_path, acknowledged=[])
            assert [key for key in store.objects if key.startswith("log/")] == slots
            check_invariants(store.objects, folder=tmp_path)

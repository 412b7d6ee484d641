"""The loop with a Trainer of plain numbers and the parent's end of a real channel."""

import errno
import json
import os
import threading

import pytest
from safetensors import SafetensorError

from fakes.loops import Parent, SumTrainer, run, steps_of, wait_for_end
from sdjob.link import Link
from sdjob.loop import Loop, LoopPlan


@pytest.fixture
def parent():
    parents = []

    def make(**options) -> Parent:
        parents.append(Parent(**options))
        return parents[-1]

    yield make
    for one in parents:
        one.close()


def test_the_parent_may_choose_another_distance_of_saves_on_the_way(parent, tmp_path):
    p, trainer = parent(), SumTrainer(seconds_a_step=1.0)
    link = Link(p.child, on_parent_gone=lambda: None)
    link.start()
    p.channel.send({"event": "interval", "seconds": 4.0})
    while link.save_every_seconds != 4.0:
        threading.Event().wait(0.005)
    plan = LoopPlan(
        start_step=0, total_steps=10, global_batch=4, save_every_steps=None, save_every_seconds=1000.0,
        validate_every_steps=None, scratch=tmp_path, num_ranks=1, is_main=True,
    )  # fmt: skip
    Loop(trainer, plan, link, trainer.clock).run(range(10))
    link.send("end")
    told = [message["step"] for message in p.messages if message["event"] in ("snapshot", "save-skipped")]
    assert sorted(told) == [4, 8, 10]


def test_what_is_to_be_published_on_the_way_is_committed_first(parent, tmp_path):
    p, trainer = parent(), SumTrainer()
    link = Link(p.child, on_parent_gone=lambda: None)
    link.start()
    plan = LoopPlan(
        start_step=0, total_steps=12, global_batch=4, save_every_steps=5, save_every_seconds=None,
        validate_every_steps=None, scratch=tmp_path, num_ranks=1, is_main=True, also_save_every_steps=(4, 6),
    )  # fmt: skip
    Loop(trainer, plan, link, trainer.clock).run(range(12))
    link.send("end")
    told = [message["step"] for message in p.messages if message["event"] in ("snapshot", "save-skipped")]
    assert sorted(told) == [4, 5, 6, 8, 10, 12]


def test_saves_at_the_interval_and_at_the_last_step(tmp_path, parent):
    p = parent()
    trainer = SumTrainer()
    assert run(trainer, p, tmp_path) == "finished"
    wait_for_end(p)
    assert steps_of(p, "snapshot")[-1] == 10
    assert set(steps_of(p, "snapshot")) | set(steps_of(p, "save-skipped")) == {3, 6, 9, 10}
    assert json.loads((tmp_path / "snapshots/00000010/state.json").read_text()) == sum(range(10))
    assert steps_of(p, "metrics") == list(range(1, 11))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"every": 3}, [1]),
        ({"every": 3, "start": 1}, [1]),
        ({"every": 10}, []),
        ({"every": None}, []),
        ({"every": None, "every_s": 60.0}, [1]),
        ({"every": 3, "main": False}, []),
    ],
)
def test_room_for_saves_is_asked_for_once_after_the_first_step_where_one_may_come_before_the_last(asked, told, tmp_path, parent):
    trainer = SumTrainer()
    run(trainer, parent(), tmp_path, **asked)
    assert trainer.expected_after == told


def test_a_stop_at_the_last_step_saves_it_and_leaves_its_pictures_to_the_next_attempt(tmp_path, parent):
    p, trainer = parent(), SumTrainer(stop_at=9)
    assert run(trainer, p, tmp_path, validate=100) == "finished"
    wait_for_end(p)
    assert steps_of(p, "snapshot")[-1] == 10
    assert trainer.validated == []

    p, trainer = parent(), SumTrainer()
    assert run(trainer, p, tmp_path, start=10, validate=100) == "finished"
    wait_for_end(p)
    assert trainer.validated == ["00000010"]
    assert steps_of(p, "samples") == [10]
    assert not p.hear("snapshot")


def test_a_slow_store_skips_saves_and_says_so_but_never_the_last(tmp_path, parent):
    p = parent(answer=False)
    trainer = SumTrainer()
    thread = threading.Thread(target=run, args=(trainer, p, tmp_path))
    thread.start()
    while steps_of(p, "save-skipped") != [6, 9]:
        threading.Event().wait(0.01)
    assert steps_of(p, "snapshot") == [3]
    p.answer = True
    p.channel.send({"event": "save-over"})
    thread.join()
    wait_for_end(p)
    assert steps_of(p, "snapshot") == [3, 10]


def test_a_stop_ends_after_the_step_that_it_came_in_and_saves(tmp_path, parent):
    p = parent()
    trainer = SumTrainer(stop_at=4)
    assert run(trainer, p, tmp_path, every=100, validate=5) == "stopped"
    wait_for_end(p)
    assert steps_of(p, "snapshot") == [5]
    assert trainer.validated == [], "a stop leaves no time for pictures"


def test_a_peers_stop_ends_all_ranks_after_the_same_step(tmp_path, parent):
    """The flag of step 4 is read while step 5 runs: every rank reads the same and stops there."""
    mains, others = parent(), parent()
    assert run(SumTrainer(peer_stops_at=4), mains, tmp_path, every=100, ranks=2) == "stopped"
    trainer = SumTrainer(peer_stops_at=4)
    assert run(trainer, others, tmp_path / "other", every=100, ranks=2, main=False) == "stopped"
    wait_for_end(mains)
    wait_for_end(others)
    assert steps_of(mains, "snapshot") == [6]
    assert trainer.total == sum(range(6))
    assert [m["event"] for m in others.messages] == ["end"], "only rank 0 saves and reports"


@pytest.mark.parametrize("is_here", [False, True])
def test_what_is_here_is_told_at_once_and_else_while_the_next_step_runs(tmp_path, parent, is_here):
    p, trainer = parent(), SumTrainer(is_here=is_here, seconds_a_step=1.0)
    run(trainer, p, tmp_path, total=4, every=100)
    wait_for_end(p)
    first = p.hear("metrics")[0]["time_s"]
    assert [m["time_s"] - first for m in p.hear("metrics")] == ([0, 1, 2, 3] if is_here else [0, 1, 2, 2])
    assert trainer.clock.unix_s() - first == (3 if is_here else 2)


def test_ranks_that_read_early_and_late_stop_after_the_same_step(tmp_path, parent):
    early, late = (SumTrainer(peer_stops_at=4, is_here=is_here) for is_here in (True, False))
    for number, trainer in enumerate((early, late)):
        assert run(trainer, parent(), tmp_path / str(number), every=100, ranks=2, main=number == 0) == "stopped"
    assert early.total == late.total == sum(range(6))


@pytest.mark.parametrize("every", [5, 6, 100])
@pytest.mark.parametrize("validate", [None, 5])
def test_a_save_or_validation_at_the_flags_own_step_does_not_lose_it(tmp_path, parent, every, validate):
    """Rank 0 reads the figures of a step that it saves at once, the others one step later: all must stop after the same."""
    mains, others = parent(), parent()
    main, other = SumTrainer(peer_stops_at=4), SumTrainer(peer_stops_at=4)
    options = {"every": every, "validate": validate, "ranks": 2}
    assert run(main, mains, tmp_path, **options) == "stopped"
    assert run(other, others, tmp_path / "other", **options, main=False) == "stopped"
    assert main.total == other.total == sum(range(6))
    wait_for_end(mains)
    assert steps_of(mains, "snapshot")[-1] == 6


def test_a_save_by_the_clock_that_must_be_skipped_is_skipped_once(tmp_path, parent):
    p = parent(answer=False)
    trainer = SumTrainer(seconds_a_step=1.0)
    thread = threading.Thread(target=run, args=(trainer, p, tmp_path), kwargs={"every": None, "every_s": 3.0, "total": 12})
    thread.start()
    while len(p.hear("metrics")) < 12:
        threading.Event().wait(0.01)
    p.answer = True
    p.channel.send({"event": "save-over"})
    thread.join()
    wait_for_end(p)
    assert steps_of(p, "snapshot") == [3, 12]
    assert steps_of(p, "save-skipped") == [6, 9]


def test_overflows_are_told(tmp_path, parent):
    p = parent()
    run(SumTrainer(overflow_at=2), p, tmp_path, total=4)
    wait_for_end(p)
    assert [m.get("overflows") for m in p.hear("metrics")] == [None, None, 1, None]


@pytest.mark.parametrize("told", [None, 1234])
def test_a_devices_memory_is_told_where_it_tells(tmp_path, parent, told):
    p = parent()
    run(SumTrainer(memory_mib=told), p, tmp_path, total=2)
    wait_for_end(p)
    assert [m.get("device_memory_mib") for m in p.hear("metrics")] == [told, told]


def test_resuming_goes_on_from_the_step(tmp_path, parent):
    p = parent()
    trainer = SumTrainer(total=sum(range(6)))
    assert run(trainer, p, tmp_path, start=6, every=4) == "finished"
    wait_for_end(p)
    assert set(steps_of(p, "snapshot")) == {8, 10}
    assert trainer.total == sum(range(10))


def test_validation_comes_before_the_save_of_its_step(tmp_path, parent):
    p = parent()
    trainer = SumTrainer()
    run(trainer, p, tmp_path, every=5, validate=5)
    wait_for_end(p)
    assert trainer.validated == ["00000005", "00000010"]
    order = [(m["event"], m["step"]) for m in p.messages if m["event"] in ("samples", "snapshot")]
    for step in (5, 10):  # a snapshot is written beside the training, so only the order within a step is certain
        assert order.index(("samples", step)) < order.index(("snapshot", step))


def test_the_held_out_loss_is_of_the_weights_after_its_step_and_told_with_it(tmp_path, parent):
    p, trainer = parent(), SumTrainer()
    run(trainer, p, tmp_path, every=4, measure=4)
    wait_for_end(p)
    told = {m["step"]: (m["loss"], m["seconds"]) for m in p.hear("held-out")}
    assert told == {step: (float(sum(range(step))), 100.0) for step in (0, 4, 8, 10)}
    with_it = {m["step"]: m["held_out_loss"] for m in p.hear("metrics") if "held_out_loss" in m}
    assert with_it == {4: 6.0, 8: 28.0, 10: 45.0}
    stepped_s = {m["step"]: m["time_s"] for m in p.hear("metrics")}
    assert stepped_s[4] == stepped_s[3] == stepped_s[5] - 100.0, "a step is over before its loss is computed"
    for step in (4, 8):
        order = [m["event"] for m in p.messages if m.get("step") == step and m["event"] in ("held-out", "snapshot")]
        assert order[0] == "held-out", "what is committed has been looked at"


@pytest.mark.parametrize(("start", "stop_at", "measured"), [(4, None, [8, 10]), (10, None, [10]), (0, 7, [0, 4]), (0, 6, [0, 4])])
def test_a_stop_leaves_no_time_for_a_held_out_loss_and_the_end_has_one(tmp_path, parent, start, stop_at, measured):
    p = parent()
    run(SumTrainer(stop_at=stop_at), p, tmp_path, start=start, every=100, measure=4)
    wait_for_end(p)
    assert steps_of(p, "held-out") == measured


def test_all_ranks_compute_the_held_out_loss_at_the_same_steps(tmp_path, parent):
    """It is reduced over them: one that is alone would wait for ever. The first rank pauses for its saves too."""
    mains, others = parent(), parent()
    main, other = SumTrainer(peer_stops_at=6), SumTrainer(peer_stops_at=6)
    options = {"every": 3, "validate": 7, "measure": 4, "ranks": 2}
    run(main, mains, tmp_path, **options)
    run(other, others, tmp_path / "other", **options, main=False)
    wait_for_end(others)
    assert main.measured == other.measured == [0, sum(range(4))]
    assert [m["event"] for m in others.messages] == ["end"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_scratch_costs_the_save_and_not_the_run(error, tmp_path, parent):
    p = parent()
    trainer = SumTrainer(fail_writing=error)
    assert run(trainer, p, tmp_path, every=100) == "finished"
    wait_for_end(p)
    assert steps_of(p, "save-failed") == [10]
    assert "No space left" in p.hear("save-failed")[0]["why"]


def test_a_fault_in_writing_ends_the_run(tmp_path, parent):
    with pytest.raises(KeyError, match="moment"):
        run(SumTrainer(fail_writing=KeyError("moment")), parent(), tmp_path, every=5)


def test_the_parents_death_is_noticed():
    p = Parent()
    gone = threading.Event()
    Link(p.child, on_parent_gone=gone.set).start()
    os.close(p.channel._write_fd)
    assert gone.wait(10)
    os.close(p.child._write_fd)
    p.thread.join()

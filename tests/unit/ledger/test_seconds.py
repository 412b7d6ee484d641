"""Every second of every attempt is in exactly one bucket, and in the right one."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.ledgers import BEGIN_S, MadeUp
from sdjob.ledger.read import AttemptLedger
from sdjob.ledger.seconds import BUCKETS, Account, Span, account, partition


def nonzero(seconds):
    return {bucket: round(value, 6) for bucket, value in seconds.items() if abs(value) > 1e-6}


def check_whole(found: Account):
    """No gap, no overlap, no negative second: whatever the ledger says."""
    for attempt in found.attempts:
        assert all(before.end_s == after.begin_s for before, after in pairwise(attempt.spans))
        assert all(span.begin_s <= span.end_s for span in attempt.spans)
        assert all(before.bucket != after.bucket for before, after in pairwise(attempt.spans))
        assert math.isclose(sum(attempt.seconds().values()), attempt.wall_s, rel_tol=1e-9, abs_tol=1e-3)
        assert attempt.start_step <= attempt.reached_step
        assert attempt.kept_step <= attempt.reached_step
    assert found.goodput is None or 0 <= found.goodput <= 1 + 1e-9


# ---- attempts that are told ------------------------------------------------------------------------------------------------


def killed_then_finished():
    first = MadeUp(1, BEGIN_S, total_steps=20)
    first.start(stage_s=0.0)
    first.prepare(restore_s=0.0)
    first.warm_up()
    first.train(5)
    first.validate(1.5)
    first.save()
    first.train(5)
    first.kill()
    second = MadeUp(2, first.now_s + 40, step=5, total_steps=20)
    second.start(stage_s=4.0)
    second.prepare(stage_s=0.0)
    second.warm_up(compile_s=0.5)
    second.train(15)
    second.finish()
    return first, second


def test_a_kill_and_a_finish():
    first, second = killed_then_finished()
    found = account([first.ledger(), second.ledger()])
    check_whole(found)
    assert nonzero(found.attempts[0].seconds()) == nonzero(first.truth)
    assert nonzero(found.attempts[1].seconds()) == nonzero(second.truth)
    assert found.attempts[0].seconds()["lost"] == 5
    assert found.waits == (Span("waiting", first.now_s, second.now_s - second_wall(second)),)
    assert (found.attempts[0].kept_step, found.attempts[0].reached_step) == (5, 10)
    assert found.goodput == pytest.approx(20 / (sum(first.truth.values()) + second_wall(second)))


def second_wall(made):
    return sum(made.truth.values())


def test_what_is_not_known_of_a_killed_attempt_is_waiting_until_somebody_knows_its_end():
    first, second = killed_then_finished()
    first.kill(after_s=3.0)
    told = [first.ledger(), second.ledger()]
    assert account(told).seconds()["waiting"] == pytest.approx(40)
    found = account(told, ended_s={1: first.now_s})
    assert (found.seconds()["waiting"], found.seconds()["lost"]) == (pytest.approx(37), pytest.approx(8))
    check_whole(found)


@pytest.mark.parametrize(
    ("before", "waiting_s", "lost_s"),
    [
        ({"began_s": BEGIN_S, "ended_s": 3.0, "exit_code": 137}, 37, 8),  # the seconds are after its last word
        ({"began_s": 20.0, "ended_s": 30.0, "exit_code": 1}, 40, 5),  # a process that came to no attempt
        ({"began_s": BEGIN_S, "ended_s": "3"}, 40, 5),
        ("nonsense", 40, 5),
    ],
)
def test_the_next_attempt_says_when_a_killed_one_ended(before, waiting_s, lost_s):
    first, second = killed_then_finished()
    last_word_s = first.now_s
    first.kill(after_s=3.0)
    if isinstance(before, dict):
        before = {k: last_word_s + v if isinstance(v, float) and v < BEGIN_S else v for k, v in before.items()}
    second.events[0]["before"] = before
    found = account([first.ledger(), second.ledger()])
    assert (found.seconds()["waiting"], found.seconds()["lost"]) == (pytest.approx(waiting_s), pytest.approx(lost_s))
    check_whole(found)


def test_of_a_running_attempt_nothing_is_lost_yet():
    first, _ = killed_then_finished()
    found = account([first.ledger()])
    assert (found.seconds()["train"], found.seconds()["lost"], found.attempts[0].is_over) == (10, 0, False)
    assert account([first.ledger()], ended_s={1: first.now_s}).seconds()["lost"] == 5


def test_a_commit_that_no_word_tells_of_counts_where_the_next_attempt_goes_on_from_it():
    first, second = killed_then_finished()
    del first.events[-1]  # the commit of step 5
    assert account([first.ledger(), second.ledger()]).attempts[0].kept_step == 5
    assert account([first.ledger()], ended_s={1: first.now_s}).attempts[0].kept_step == 0


def test_a_commit_that_was_found_damaged_loses_all_attempts_that_built_on_it():
    attempts, now_s = [], BEGIN_S
    for number, step in ((1, 0), (2, 5), (3, 0)):
        made = MadeUp(number, now_s, step=step)
        made.start()
        made.prepare()
        made.train(5)
        made.save()
        made.kill()
        now_s = made.now_s + 1
        attempts.append(made.ledger())
    found = account(attempts)
    assert [attempt.kept_step for attempt in found.attempts] == [0, 0, 5]
    assert [attempt.seconds()["train"] > 0 for attempt in found.attempts] == [False, False, True]


def test_a_stop_on_request_loses_nothing_and_waits_for_its_save():
    made = MadeUp(1, BEGIN_S)
    made.start()
    made.prepare()
    made.warm_up()
    made.train(7)
    made.stop()
    found = account([made.ledger()])
    assert nonzero(found.attempts[0].seconds()) == nonzero(made.truth)
    assert found.seconds()["save"] == 1.25


def test_a_failure_in_the_middle_loses_what_was_not_committed():
    made = MadeUp(1, BEGIN_S)
    made.start()
    made.prepare()
    made.warm_up()
    made.train(4)
    made.save()
    made.train(3)
    made.spend("train", 0.5)
    made.end(78, "the loss is not finite")
    assert nonzero(account([made.ledger()]).attempts[0].seconds()) == nonzero(made.truth)


def test_an_attempt_that_only_draws_the_last_pictures_and_publishes():
    made = MadeUp(1, BEGIN_S, step=20, total_steps=20)
    made.start(stage_s=2.0)
    made.prepare(stage_s=0.0)
    made.validate(4.0)
    made.phase("publish", "publish", 3.0)
    made.end(0, "done")
    assert nonzero(account([made.ledger()]).attempts[0].seconds()) == nonzero(made.truth)


def test_two_attempts_at_a_time_wait_for_nothing_and_the_fenced_one_has_lost():
    _, second = killed_then_finished()
    zombie = MadeUp(1, BEGIN_S, total_steps=20)
    zombie.start()
    zombie.prepare()
    zombie.train(200)
    zombie.end(76, "another attempt owns the run now.")
    found = account([zombie.ledger(), second.ledger()])
    check_whole(found)
    assert found.waits == ()
    assert found.attempts[0].kept_step == 5
    assert found.paid_s == pytest.approx(sum(attempt.wall_s for attempt in found.attempts))


def test_who_only_tidied_up_is_no_attempt():
    first, second = killed_then_finished()
    prune = MadeUp(3, second.now_s + 1000)
    prune.tell("start", verb="checkpoints prune")
    prune.tell("end", verb="checkpoints prune")
    told = [first.ledger(), second.ledger()]
    assert account([*told, prune.ledger()]) == account(told)


def test_a_program_compiled_within_a_validation_is_compiling():
    made = MadeUp(1, BEGIN_S)
    made.start()
    made.prepare()
    made.train(3)
    step_s = made.now_s
    made.events.append({"time_s": step_s + 6, "kind": "phase", "name": "compile", "seconds": 4.0})
    made.events.append({"time_s": step_s + 10, "kind": "samples", "step": 3, "seconds": 10.0})
    seconds = account([made.ledger()]).seconds()
    assert (seconds["compile"], seconds["validate"]) == (4.0, 6.0)


def test_the_ledger_s_clock_counts_and_not_the_order_of_its_lines():
    first, second = killed_then_finished()
    shuffled = [AttemptLedger(attempt=m.attempt, events=m.events[::-1], metrics=m.metrics) for m in (first, second)]
    assert nonzero(account(shuffled).seconds()) == nonzero(account([first.ledger(), second.ledger()]).seconds())


def test_nothing_is_nothing():
    assert account([]) == Account((), ())
    assert account([AttemptLedger(attempt=1)]).attempts == ()
    assert account([]).goodput is None
    assert list(partition([], began_s=1.0, until_s=3.0)) == [Span("start", 1.0, 3.0)]


# ---- attempts that chance makes --------------------------------------------------------------------------------------------

durations = st.floats(0, 50).map(lambda value: round(value, 3))
endings = st.sampled_from(["killed", "stopped", "failed", "killed early"])


@st.composite
def runs(draw):
    """A run of some attempts, the last one to its end or not, and the truth about it."""
    made, now_s, step = [], BEGIN_S, 0
    for number in range(1, draw(st.integers(1, 5)) + 1):
        attempt = MadeUp(number, now_s, step=step, total_steps=10_000, step_s=draw(st.floats(0.01, 3).map(lambda v: round(v, 3))))
        ending = draw(endings)
        step = one_attempt(draw, attempt, ending=ending)
        made.append(attempt)
        now_s = attempt.now_s + draw(durations)
    return made


def one_attempt(draw, attempt, *, ending):
    """Returns the step from which the next one goes on."""
    committed = attempt.step
    attempt.start(stage_s=draw(durations), peers_s=draw(durations))
    if ending == "killed early":
        attempt.kill()
        return committed
    attempt.prepare(stage_s=draw(durations), restore_s=draw(durations), load_s=draw(durations))
    attempt.warm_up(compile_s=draw(durations), other_s=draw(durations))
    for _ in range(draw(st.integers(0, 4))):
        attempt.train(draw(st.integers(4, 12)))  # enough between two pauses that their median is a step's
        if draw(st.booleans()):
            attempt.validate(draw(durations))
        if draw(st.booleans()):
            attempt.save(stall_s=draw(durations))
            committed = attempt.step
    attempt.train(draw(st.integers(5, 12)))
    if ending == "stopped":
        attempt.stop(upload_s=draw(durations))
        return attempt.step
    if ending == "failed":
        attempt.end(70, "a fault")
    else:
        attempt.kill()
    return committed


@given(runs())
def test_what_was_made_up_is_found(made):
    known_s = {attempt.attempt: attempt.now_s for attempt in made}
    found = account([attempt.ledger() for attempt in made], ended_s=known_s)
    check_whole(found)
    for attempt, sums in zip(made, found.attempts, strict=True):
        assert sums.seconds() == pytest.approx(attempt.truth, rel=1e-6, abs=1e-3)
    gaps_s = sum(max(0.0, after.now_s - sum(after.truth.values()) - before.now_s) for before, after in pairwise(made))
    assert sum(span.seconds for span in found.waits) == pytest.approx(gaps_s, abs=1e-3)


numbers = st.one_of(st.integers(-(2**60), 2**60), st.floats(allow_nan=True, allow_infinity=True))
odd_values = st.one_of(numbers, st.sampled_from([None, True, "", "5", "nan", [1], {}]))
times = st.floats(-1e12, 1e12)
kinds = st.sampled_from(
    ["start", "phase", "train", "restored", "ready", "commit", "save-failed", "samples", "stopping", "end", "?"]
)
names = st.sampled_from(["name", "seconds", "step", "stall_s", "exit_code", "start_step", "total_steps", "why"])
phase_names = st.sampled_from(["stage", "compile", "restore", "publish", "imports", "peers"])
odd_events = st.builds(
    lambda time_s, kind, name, fields: {"name": name, **fields, "time_s": time_s, "kind": kind},
    times, kinds, phase_names, st.dictionaries(names, odd_values, max_size=4),
)  # fmt: skip
odd_metrics = st.builds(lambda time_s, step: {"time_s": time_s, "step": step}, times, st.integers(0, 100))


@given(
    st.lists(
        st.builds(lambda events, metrics: (events, metrics), st.lists(odd_events, max_size=8), st.lists(odd_metrics, max_size=8)),
        max_size=4,
    )
)
def test_nonsense_adds_up_too(attempts):
    ledgers = [
        AttemptLedger(attempt=number, events=events, metrics=metrics)
        for number, (events, metrics) in enumerate(attempts, start=1)
    ]
    found = account(ledgers)
    check_whole(found)
    assert set(found.seconds()) == set(BUCKETS)

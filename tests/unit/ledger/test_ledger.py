"""What an attempt writes, what a reader finds, whatever was torn between."""

import json
import math
import threading
from pathlib import Path

import pytest

from fakes.clock import FakeClock
from fakes.memory_store import Call, MemoryStore, busy, fail
from fakes.running import HANG_S
from sdjob.core.errors import StorageError
from sdjob.core.retry import Backoff
from sdjob.ledger.add_up import attempt_hours, hours_used
from sdjob.ledger.read import AttemptLedger, read_attempt, read_ledger, records_in
from sdjob.ledger.write import FLUSH_AGE_S, FLUSH_LINES, SCHEMA, LedgerWriter, json_line
from sdjob.store.base import ObjectDeniedError
from sdjob.store.local import LocalStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def writer(store: MemoryStore, clock: FakeClock) -> LedgerWriter:
    """What is due is written at once, by whoever adds the line."""
    return LedgerWriter(store, attempt=1, clock=clock, beside=lambda work: work())


class TestWriting:
    def test_nothing_before_it_is_due(self, store, writer):
        writer.event("start")
        writer.metrics(1, loss=0.5)
        assert store.objects == {}

    def test_flush_writes_numbered_objects(self, store, writer):
        for step in (1, 2):
            writer.event("save", step=step)
            writer.metrics(step, loss=0.5)
            writer.flush()
        writer.flush()
        assert sorted(store.objects) == [
            "attempts/0001/events-000001.jsonl",
            "attempts/0001/events-000002.jsonl",
            "attempts/0001/metrics-000001.jsonl",
            "attempts/0001/metrics-000002.jsonl",
        ]
        assert {call.method for call in store.calls} == {"write"}

    def test_flushes_by_count(self, store, writer):
        for step in range(FLUSH_LINES):
            assert store.objects == {}
            writer.metrics(step)
        assert list(store.objects) == ["attempts/0001/metrics-000001.jsonl"]

    def test_flushes_by_age_of_either_kind(self, store, writer, clock):
        writer.event("start")
        clock.advance(FLUSH_AGE_S)
        writer.metrics(1)
        assert list(store.objects) == ["attempts/0001/events-000001.jsonl"]

    def test_time_kind_and_schema(self, store, writer, clock):
        writer.event("start", host="pod-a")
        clock.advance(1.5)
        writer.event("ready")
        writer.flush()
        first, second = map(json.loads, store.objects["attempts/0001/events-000001.jsonl"].splitlines())
        assert first == {"schema": 1, "time_s": 1_700_000_000.0, "kind": "start", "host": "pod-a"}
        assert second == {"time_s": 1_700_000_001.5, "kind": "ready"}

    def test_what_is_not_finite_is_null_and_named(self):
        line = json_line({"loss": math.nan, "parts": {"a": [1.0, -math.inf]}, "lr": 0.1, "path": Path("x")})
        assert json.loads(line) == {
            "loss": None,
            "parts": {"a": [1.0, None]},
            "lr": 0.1,
            "path": "x",
            "not_finite": {"loss": "nan", "parts.a.1": "-inf"},
        }


class TestTrouble:
    def test_storage_that_fails_does_not_stop_training_and_nothing_is_lost(self, store, writer, clock):
        store.before.append(fail(StorageError("full"), method="write", times=2))
        for step in range(FLUSH_LINES * 4):
            writer.metrics(step)
        writer.flush()
        assert [record["step"] for record in read_attempt(store, attempt=1).metrics] == list(range(FLUSH_LINES * 4))
        assert len(store.calls) < 10

    def test_a_reply_that_was_lost_leaves_each_line_once(self, store, writer):
        store.after.append(fail(busy(), method="write", times=1))
        for step in range(FLUSH_LINES + 5):
            writer.metrics(step)
        writer.flush()
        assert [record["step"] for record in read_attempt(store, attempt=1).metrics] == list(range(FLUSH_LINES + 5))

    def test_the_last_flush_tries_again_and_then_says_so(self, store, writer, clock):
        writer.event("end")
        store.before.append(fail(busy(), method="write", times=3))
        writer.flush()
        assert len(clock.slept_s) == 3
        writer.event("more")
        store.before.append(fail(StorageError("full"), method="write"))
        with pytest.raises(StorageError):
            writer.flush()
        writer.flush()
        assert [event["kind"] for event in read_attempt(store, attempt=1).events] == ["end", "more"]

    def test_denied_is_told_with_the_next_line_and_once(self, store, writer, clock):
        store.before.append(fail(ObjectDeniedError("403"), method="write"))
        writer.event("start")
        clock.advance(FLUSH_AGE_S)
        writer.event("next")
        with pytest.raises(ObjectDeniedError):
            writer.event("third")
        writer.event("fourth")
        writer.flush()
        assert [event["kind"] for event in read_attempt(store, attempt=1).events] == ["start", "next", "third", "fourth"]

    def test_a_store_that_fails_is_not_asked_again_before_some_time_has_passed(self, store, writer, clock):
        """Though it took its time to fail."""

        def hang(_: Call) -> None:
            clock.advance(60.0)

        store.before += [hang, fail(StorageError("no answer"), method="write", times=1)]
        writer.event("start")
        clock.advance(FLUSH_AGE_S)
        for _ in range(10):
            writer.event("next")
        assert len(store.calls) == 1
        clock.advance(FLUSH_AGE_S)
        writer.event("last")
        assert len(store.calls) == 2
        assert len(read_attempt(store, attempt=1).events) == 12

    def test_nobody_waits_for_a_store_that_says_nothing(self, store, clock):
        """Neither for what a line has written beside, nor for another thread's flush; each line is written once."""
        asked, answers = threading.Semaphore(0), threading.Event()

        def hang(call: Call) -> None:
            if call.method == "write":
                asked.release()
                assert answers.wait(HANG_S)

        store.before.append(hang)
        writer = LedgerWriter(store, attempt=1, clock=clock)
        for begin in (lambda: writer.metrics(FLUSH_LINES - 1), threading.Thread(target=writer.flush).start):
            answers.clear()
            for step in range(FLUSH_LINES - 1):
                writer.metrics(step)
            begin()
            assert asked.acquire(timeout=HANG_S)
            for step in range(FLUSH_LINES, 2 * FLUSH_LINES):
                writer.metrics(step)
                writer.event("while it hangs")
            answers.set()
            writer.flush()
        steps = [record["step"] for record in read_attempt(store.client(), attempt=1).metrics]
        once = [*range(FLUSH_LINES), *range(FLUSH_LINES, 2 * FLUSH_LINES)]
        assert steps == [*once, *once[: FLUSH_LINES - 1], *once[FLUSH_LINES:]]
        assert all(b'{"schema": 1, ' in data.splitlines()[0] for data in store.objects.values())


class TestReading:
    def test_every_attempt_in_order(self, store, clock):
        for attempt in (2, 10, 1):
            writer = LedgerWriter(store, attempt=attempt, clock=clock)
            writer.event("start")
            writer.flush()
            writer.metrics(attempt)
            writer.flush()
        ledgers = read_ledger(store)
        assert [ledger.attempt for ledger in ledgers] == [1, 2, 10]
        assert [ledger.metrics[0]["step"] for ledger in ledgers] == [1, 2, 10]
        assert all(ledger.torn_lines == 0 for ledger in ledgers)

    def test_objects_in_order_of_their_numbers(self, store):
        for number in (10, 9, 1000000):
            store.objects[f"attempts/0001/metrics-{number:06d}.jsonl"] = json_line({"time_s": 1, "step": number}).encode()
        assert [record["step"] for record in read_attempt(store, attempt=1).metrics] == [9, 10, 1000000]

    def test_a_torn_tail_costs_itself_alone(self, store, writer):
        writer.event("start")
        writer.event("end")
        writer.flush()
        key = "attempts/0001/events-000001.jsonl"
        for cut in range(len(store.objects[key])):
            records, torn = records_in(store.objects[key][:cut], kind="events")
            assert len(records) <= 2
            assert torn <= 1
        store.objects[key] = store.objects[key][:-5]
        (ledger,) = read_ledger(store)
        assert [event["kind"] for event in ledger.events] == ["start"]
        assert ledger.torn_lines == 1

    def test_damage_in_the_middle_too(self):
        records, torn = records_in(b'{"time_s": 1, "kind": "a"}\n\xff\xfe\n[]\n{"time_s": 2, "kind": "b"}\n', kind="events")
        assert [record["kind"] for record in records] == ["a", "b"]
        assert torn == 2

    def test_what_nobody_can_reckon_with_is_torn(self):
        lines = [b'{"time_s": NaN, "kind": "a"}', b'{"time_s": "1", "kind": "a"}', b'{"time_s": 1, "kind": 2}', b'{"kind": "a"}']
        assert records_in(b"\n".join(lines), kind="events") == ([], 4)
        lines = [b'{"time_s": 1, "step": "3"}', b'{"time_s": 1, "step": -1}', b'{"time_s": 1e300, "step": 1}', b"[" * 100_000]
        assert records_in(b"\n".join(lines), kind="metrics") == ([], 4)
        huge = b'{"time_s": ' + b"9" * 400 + b', "kind": "a"}'
        assert records_in(huge, kind="events") == ([], 1)

    def test_a_newer_schema_is_said(self, store, writer):
        writer.event("start")
        writer.metrics(1)
        writer.flush()
        assert (read_ledger(store)[0].schema, read_ledger(store)[0].is_newer) == (SCHEMA, False)
        store.objects["attempts/0001/metrics-000002.jsonl"] = b'{"schema": 7, "time_s": 1, "step": 2}\n{"time_s": 1, "step": 3}\n'
        assert (read_ledger(store)[0].schema, read_ledger(store)[0].is_newer) == (7, True)
        store.objects["attempts/0001/metrics-000002.jsonl"] = b'{"schema": "x", "time_s": 1, "step": 2}\n'
        assert not read_ledger(store)[0].is_newer

    def test_other_objects_are_no_ledger(self, store):
        store.objects.update({"attempts/0001/samples/1.png": b"x", "attempts/0002/events-1.jsonl": b"x", "log/0": b"x"})
        assert read_ledger(store) == []

    def test_one_attempt_is_not_another_that_begins_the_same(self, store, clock):
        for attempt in (1, 1000, 10000):
            writer = LedgerWriter(store, attempt=attempt, clock=clock)
            writer.event(str(attempt))
            writer.flush()
        assert [event["kind"] for event in read_attempt(store, attempt=1000).events] == ["1000"]
        assert read_attempt(store, attempt=7) == AttemptLedger(attempt=7)

    def test_busy_is_tried_again(self, store, writer, clock):
        writer.event("start")
        writer.flush()
        store.before.append(fail(busy(), method="list"))
        store.before.append(fail(busy(), method="read"))
        assert len(read_ledger(store, backoff=Backoff(clock=clock))) == 1

    def test_on_a_folder(self, tmp_path, clock):
        store = LocalStore(tmp_path / "place")
        assert read_ledger(store) == []
        writer = LedgerWriter(store, attempt=3, clock=clock)
        writer.event("start")
        writer.flush()
        assert read_ledger(store)[0].events[0]["kind"] == "start"


class TestAddUp:
    def test_first_to_last_of_each_attempt(self):
        ledgers = [
            AttemptLedger(attempt=1, events=[{"time_s": 0.0}, {"time_s": 1800.0}]),
            AttemptLedger(attempt=2, events=[{"time_s": 90_000.0}], metrics=[{"time_s": 91_800.0}]),
            AttemptLedger(attempt=3, events=[{"time_s": 200_000.0}]),
            AttemptLedger(attempt=4),
        ]
        assert [attempt_hours(ledger) for ledger in ledgers] == [0.5, 0.5, 0.0, 0.0]
        assert hours_used(ledgers) == 1.0
        assert hours_used([]) == 0.0

    def test_a_clock_that_was_set_back_never_gives_hours_back(self):
        assert attempt_hours(AttemptLedger(attempt=1, events=[{"time_s": 7200.0}, {"time_s": 3600.0}])) == 1.0

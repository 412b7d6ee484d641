"""Compiled programs between attempts: through the run's place and through this machine's scratch."""

import hashlib
import io
import os
from dataclasses import replace

import pytest

from fakes.checkpoints import make_job
from fakes.clock import FakeClock
from fakes.memory_store import MemoryStore, fail
from sdjob.core.errors import StoppedError, StorageError
from sdjob.core.log import Log
from sdjob.job import compiled as module
from sdjob.job.compiled import CompiledPrograms, arithmetic_of, compiled_folder, drop_oldest, kind_of
from sdjob.job.resume import Resolution

STEP, OTHER = f"jit_advance-{'a' * 64}-cache", f"jit_guided-{'b' * 64}-cache"


@pytest.fixture
def words():
    return io.StringIO()


@pytest.fixture
def attempt(tmp_path, words):
    """Makes the programs' keeper of an attempt on a machine."""

    def make(store, *, machine="here", number=1, check_stop=lambda: None):
        log = Log(mode="text", stream=words, clock=FakeClock(), secrets=())
        root = tmp_path / machine
        return CompiledPrograms(store, root / "xla" / "kind", root / f"attempt-{number}" / "xla", "kind", check_stop, log)

    return make


def compile_into(programs, **contents):
    programs.bring()
    for name, content in contents.items():
        (programs.own / {"step": STEP, "other": OTHER}[name]).write_bytes(content)
    return programs


def kept(programs, *names):
    programs.keep(names)
    programs.finish(timeout_s=60)


def key(name, content):
    return f"cache/xla/kind/{name}.{hashlib.sha256(content).hexdigest()}"


def own(programs):
    programs.bring()
    return {path.name: path.read_bytes() for path in programs.own.iterdir()}


def test_another_machine_finds_them_in_the_runs_place(attempt, words):
    store = MemoryStore()
    kept(compile_into(attempt(store), step=b"program"), STEP)
    assert store.objects == {key(STEP, b"program"): b"program"}
    assert own(attempt(store, machine="there")) == {STEP: b"program"}
    assert words.getvalue() == ""


def test_another_run_on_the_machine_finds_them_and_takes_those_it_used_to_its_own_place(attempt):
    kept(compile_into(attempt(MemoryStore()), step=b"program", other=b"pictures"), STEP, OTHER)
    second = attempt(store := MemoryStore(), number=2)
    assert own(second) == {STEP: b"program", OTHER: b"pictures"}
    kept(second, STEP)
    assert list(store.objects) == [key(STEP, b"program")]


def test_what_the_place_has_is_neither_fetched_nor_uploaded_again(attempt):
    store = MemoryStore()
    kept(compile_into(attempt(store), step=b"program"), STEP)
    store.calls.clear()
    second = attempt(store, number=2)
    second.bring()
    kept(second, STEP)
    assert {call.method for call in store.calls} == {"list"}


def test_an_entry_that_is_not_what_its_name_says_is_compiled_again(attempt, words):
    store = MemoryStore({key(STEP, b"program"): b"programmE", key(OTHER, b"pictures"): b"pictures"})
    assert own(attempt(store)) == {OTHER: b"pictures"}
    assert "not what was kept" in words.getvalue()


def test_a_flaw_on_the_disk_is_seen_at_the_next_attempt(attempt, words):
    first = compile_into(attempt(MemoryStore()), step=b"program")
    kept(first, STEP)
    (path,) = first.shared.iterdir()
    path.write_bytes(b"pro")
    assert own(attempt(MemoryStore(), number=2)) == {}
    assert not path.exists()
    assert "not what was kept" in words.getvalue()


@pytest.mark.parametrize("name", ["jit_advance-cache.py", "notes.txt", f"{STEP}.123", f"sub/{STEP}.{'0' * 64}"])
def test_strange_names_stay_where_they_are(attempt, name):
    store = MemoryStore({f"cache/xla/kind/{name}": b"something"})
    assert own(attempt(store)) == {}
    assert not [call for call in store.calls if call.method != "list"]


@pytest.mark.parametrize("name", ["../escape-cache", "sub/x-cache", ".hidden-cache", "plain"])
def test_a_name_that_jax_would_not_give_is_not_kept(attempt, words, name):
    kept(compile_into(attempt(store := MemoryStore())), name)
    assert store.objects == {}
    assert "is no name of a compiled program" in words.getvalue()


def test_storage_trouble_is_a_warning(attempt, words):
    store = MemoryStore()
    store.before += [fail(StorageError("the bucket is gone"), method=method) for method in ("list", "write_file")]
    programs = compile_into(attempt(store), step=b"program")
    kept(programs, STEP)
    assert words.getvalue().count("the bucket is gone") == 2
    store.before.append(fail(StorageError("the bucket is gone"), method="list"))
    assert own(attempt(store, number=2)) == {STEP: b"program"}, "the machine has it"


def test_a_stop_request_is_heard_while_programs_are_fetched(attempt):
    def stop():
        raise StoppedError("stopped")

    store = MemoryStore({key(STEP, b"program"): b"program"})
    with pytest.raises(StoppedError):
        attempt(store, check_stop=stop).bring()


def test_a_runs_place_is_not_filled_without_an_end(attempt, words, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 10)
    store = MemoryStore()
    kept(compile_into(attempt(store), step=b"program", other=b"pictures"), STEP, OTHER)
    assert list(store.objects) == [key(STEP, b"program")]
    assert "has reached its" in words.getvalue()


def test_the_oldest_leave_the_machine_first(tmp_path):
    for age, name in enumerate(["newest", "middle", "oldest"]):
        (tmp_path / name).write_bytes(bytes(4))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    drop_oldest(tmp_path, most_bytes=9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["middle", "newest"]


def test_torchs_packs_lie_beside_what_flax_compiled(attempt):
    programs = replace(attempt(store := MemoryStore()), backend="torch")
    kept(compile_into(programs, step=b"pack"), STEP)
    assert list(store.objects) == [key(STEP, b"pack").replace("cache/xla/", "cache/inductor/")]
    assert own(replace(attempt(store, machine="there"), backend="torch")) == {STEP: b"pack"}


def test_torch_has_programs_where_the_job_compiles(tmp_path):
    folders = [compiled_folder(make_job(train=train), attempt=tmp_path) for train in ({}, {"compile": True}, {"backend": "flax"})]
    assert folders == [None, tmp_path / "inductor", tmp_path / "xla"]


def test_torchs_programs_are_of_one_arithmetic():
    job = make_job(train={"compile": True, "deterministic": True})
    resolution = Resolution(job, total_steps=1, threads=2, identity={}, isa="avx2")
    faster = job.model_copy(update={"train": job.train.model_copy(update={"deterministic": False})})
    others = [replace(resolution, threads=4), replace(resolution, isa="avx512"), replace(resolution, job=faster)]
    kinds = [kind_of("cpu", accelerator=None, backend="torch", arithmetic=arithmetic_of(r)) for r in (resolution, *others)]
    assert len({*kinds, kind_of("cpu", accelerator=None)}) == 5
    assert arithmetic_of(replace(resolution, job=make_job(train={"backend": "flax"}))) == ()


def test_machines_of_different_kinds_share_nothing(monkeypatch):
    monkeypatch.setattr(module, "cpu_model", lambda: "flags: avx2")
    cpu, tpu = kind_of("cpu", accelerator=None), kind_of("tpu", accelerator="v5e")
    monkeypatch.setattr(module, "cpu_model", lambda: "flags: avx512f")
    assert len({cpu, tpu, kind_of("cpu", accelerator=None), kind_of("tpu", accelerator="v6e")}) == 4
    assert kind_of("tpu", accelerator="v5e") == tpu
    monkeypatch.setattr(module, "installed_version", lambda package: "9.9")
    assert kind_of("tpu", accelerator="v5e") != tpu

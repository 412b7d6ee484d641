"""`sdjob checkpoints list|verify|prune` on a folder."""

import argparse
import json
from pathlib import Path

import pytest

from fakes.checkpoints import make_job
from fakes.clock import FakeClock
from fakes.runs import commit_log, digest_of, play, quiet_log, snapshot
from sdjob.cli.checkpoints import add_arguments, execute, readable_size
from sdjob.core.errors import FencedError, MissingError, UsageError
from sdjob.ledger.write import LedgerWriter
from sdjob.spec.load import resolved_yaml
from sdjob.store.local import LocalStore


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "place"


@pytest.fixture
def done(place: Path, tmp_path: Path) -> Path:
    play(commit_log(LocalStore(place), keep=3), tmp_path, acknowledged=[])
    return place


@pytest.fixture
def running(place: Path, tmp_path: Path):
    """An attempt between two commits."""
    log = commit_log(LocalStore(place), keep=9)
    log.claim(attempt="1", host="pod-a")
    for step in (10, 20, 30, 40):
        log.commit(snapshot(tmp_path / "states", step=step), step=step, facts={})
    return log


def sdjob(*words: object) -> int:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return execute(parser.parse_args([str(word) for word in words]), log=quiet_log())


def files_of(place: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def break_newest(place: Path) -> None:
    log = commit_log(LocalStore(place))
    (place / log.manifest_of(log.replay().live[0]).files["weights.safetensors"].blob).write_bytes(b"damaged")


class TestList:
    def test_a_table(self, done, capsys, tmp_path):
        assert sdjob("list", done) == 0
        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split() == ["slot", "step", "epoch", "time", "size", "state", "digest"]
        assert [row.split()[1] for row in rows] == ["10", "20", "30"]
        assert rows[-1].split()[-1] == digest_of(30, folder=tmp_path / "states")[:16]

    def test_json(self, done, capsys, tmp_path):
        assert sdjob("list", done, "--json") == 0
        listed = json.loads(capsys.readouterr().out)
        assert (listed["place"], listed["done_step"], listed["damaged_slots"]) == (done.as_uri(), 30, [])
        newest = listed["commits"][-1]
        assert newest["digest"] == digest_of(30, folder=tmp_path / "states")
        assert (newest["step"], newest["epoch"], newest["state"], newest["why"]) == (30, 1, "live", None)
        assert newest["time"] == "2023-11-14T22:13:20Z"


class TestVerify:
    def test_whole(self, done, capsys):
        before = files_of(done)
        assert sdjob("verify", done) == 0
        out = capsys.readouterr().out
        assert out.count("whole") == 3
        assert "goes on from step 30" in out
        assert files_of(done) == before

    def test_damage_is_78_even_if_an_older_commit_is_whole(self, done, capsys):
        break_newest(done)
        before = files_of(done)
        assert sdjob("verify", done, "--json") == 78
        report = json.loads(capsys.readouterr().out)
        assert (report["whole"], report["restorable_step"]) == (False, 20)
        assert "weights" not in report["commits"][1]["damage"]
        assert "blob/1/" in report["commits"][0]["damage"][0]
        assert sdjob("verify", done) == 78
        assert "DAMAGED" in capsys.readouterr().out
        assert files_of(done) == before

    def test_a_damaged_slot_is_78_too(self, done, capsys):
        (done / "log" / "000000000002.json").write_bytes(b"torn")
        assert sdjob("verify", done) == 78
        assert "slot 2: DAMAGED" in capsys.readouterr().out

    def test_a_run_without_a_commit_is_whole(self, place, capsys):
        commit_log(LocalStore(place)).claim(attempt="1", host="h")
        assert sdjob("verify", place) == 0
        assert "nothing is committed yet" in capsys.readouterr().out


class TestPrune:
    def test_a_done_run_again_and_again(self, done, capsys):
        assert sdjob("prune", done, "--keep", 2) == 0
        assert capsys.readouterr().out == "retired: 10\nkept: 20, 30\n"
        assert sdjob("prune", done, "--keep", 1, "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"place": done.as_uri(), "retired_steps": [20], "kept_steps": [30]}
        assert sdjob("verify", done) == 0
        assert commit_log(LocalStore(done)).replay().done.step == 30

    def test_keeps_what_the_runs_own_job_keeps(self, running, place, capsys):
        job = make_job(checkpoint={"to": str(place), "keep": 1, "keep_every": 20})
        LocalStore(place).write("job.yaml", resolved_yaml(job).encode())
        assert sdjob("prune", place, "--take-over") == 0
        assert capsys.readouterr().out == "retired: 10, 30\nkept: 20, 40\n"

    def test_a_run_that_may_be_running_is_left_alone(self, running, place, tmp_path):
        before = files_of(place)
        with pytest.raises(UsageError, match="attempt 1 on host pod-a has not recorded its end") as caught:
            sdjob("prune", place)
        assert caught.value.exit_code == 64
        assert "--take-over" in str(caught.value)
        assert files_of(place) == before
        running.still_owner()

    def test_one_whose_last_attempt_recorded_its_end(self, running, place, capsys):
        ledger = LedgerWriter(LocalStore(place), attempt=1, clock=FakeClock())
        ledger.event("end", exit_code=75)
        ledger.flush()
        assert sdjob("prune", place) == 0
        assert capsys.readouterr().out == "retired: 10\nkept: 20, 30, 40\n"

    def test_take_over_stops_the_running_attempt(self, running, place, tmp_path):
        assert sdjob("prune", place, "--take-over") == 0
        with pytest.raises(FencedError, match="checkpoints prune"):
            running.commit(snapshot(tmp_path / "states", step=50), step=50, facts={})


@pytest.mark.parametrize("verb", ["list", "verify", "prune"])
class TestWrongPlace:
    def test_no_run_there(self, verb, tmp_path):
        for place in (tmp_path / "never", tmp_path):
            with pytest.raises(MissingError, match="no run in this place") as caught:
                sdjob(verb, place)
            assert caught.value.exit_code == 66
        assert list(tmp_path.iterdir()) == []

    def test_the_hub_keeps_no_runs(self, verb):
        with pytest.raises(UsageError, match="keeps no checkpoints"):
            sdjob(verb, "hf://me/run")


@pytest.mark.parametrize("words", [[], ["list"], ["prune", "x", "--keep", "0"], ["prune", "x", "--keep", "-1"], ["repair", "x"]])
def test_wrong_words_are_refused(words):
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        sdjob(*words)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3_500_000, "3.3 MiB"),
        (13_800_000_000, "12.9 GiB"),
        (2**53, "8192.0 TiB"),
    ],
)
def test_sizes_for_people(size_bytes, text):
    assert readable_size(size_bytes) == text

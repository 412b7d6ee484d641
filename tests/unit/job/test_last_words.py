"""How a run ended is left where the kubelet looks for it, and nowhere else."""

import io

import pytest

from fakes.clock import FakeClock
from sdjob.core.errors import MissingError
from sdjob.core.log import Log
from sdjob.job import last_words as module
from sdjob.job.last_words import last_words, leave


@pytest.fixture
def file(tmp_path, monkeypatch):
    """As the kubelet lays it: there, and empty."""
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setattr(module, "FILE", path)
    return path


def words(*, environment=None, secrets=(), out=None):
    log = Log(mode="text", stream=out or io.StringIO(), clock=FakeClock(), secrets=secrets)
    return last_words(environment=environment or {}, log=log)


def say(sentence, *, environment=None):
    log = Log(mode="text", stream=io.StringIO(), clock=FakeClock(), secrets=())
    leave(sentence, environment=environment or {}, log=log)


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (MissingError("it is not there.", where="gs://b/x", next_step="Correct it."), "gs://b/x: it is not there. Correct it."),
        (KeyboardInterrupt(), "stopped on request."),
        (ValueError("odd"), "this is a fault of sdjob: ValueError: odd"),
    ],
)
def test_an_error_leaves_its_sentence_and_goes_on(file, error, left):
    with pytest.raises(type(error)), words():
        raise error
    assert file.read_text() == left


def test_a_later_sentence_takes_the_place_of_an_earlier_one(file):
    file.write_text("what an earlier attempt in this container said, at length")
    say("done")
    assert file.read_text() == "done"


def test_outside_a_pod_nothing_is_written(file):
    file.unlink()
    say("done")
    assert not file.exists()


def test_another_path_by_the_environment(file, tmp_path):
    other = tmp_path / "other"
    other.touch()
    say("done", environment={"SDJOB_TERMINATION_LOG": str(other)})
    assert (other.read_text(), file.read_text()) == ("done", "")


def test_no_secret_and_no_half_character(file):
    with pytest.raises(ValueError), words(secrets=("hunter2-hunter2",)):  # noqa: PT011
        raise ValueError("hunter2-hunter2 " + "ü" * 5000)
    assert len(file.read_bytes()) in {4095, 4096}
    text = file.read_text()
    assert text.startswith("this is a fault of sdjob: ValueError: *** üüü")
    assert text.endswith("ü...")


def test_a_file_that_cannot_be_written_is_told_and_hides_no_error(file, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    out = io.StringIO()
    with pytest.raises(MissingError), words(out=out):
        raise MissingError("it is not there.")
    assert "termination-log could not be written: No space left on device" in out.getvalue()

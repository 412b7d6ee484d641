"""Events for people and programs; secrets for nobody."""

import io
import json

import pytest

from fakes.clock import FakeClock
from fakes.terminal import terminal
from sdjob.core.log import Log, redacted, resolve_mode, secret_values


class Terminal(io.StringIO):
    def isatty(self):
        return True


def made(mode="json", *, secrets=(), stream=None):
    stream = stream or io.StringIO()
    return Log(mode=mode, stream=stream, clock=FakeClock(unix_s=12.34567), secrets=secrets), stream


class TestJson:
    def test_an_event_is_a_line(self):
        log, out = made()
        log.event("commit", "committed step 10", step=10, digest="abc")
        assert json.loads(out.getvalue()) == {
            "time": 12.346, "event": "commit", "message": "committed step 10", "step": 10, "digest": "abc",
        }  # fmt: skip
        assert out.getvalue().count("\n") == 1

    def test_a_warning_says_so(self):
        log, out = made()
        log.warning("inexact", "to rounding only")
        assert json.loads(out.getvalue())["level"] == "warning"

    def test_line_breaks_do_not_break_lines(self):
        log, out = made()
        log.event("failed", "one\ntwo")
        assert out.getvalue().count("\n") == 1

    def test_values_that_json_does_not_know(self, tmp_path):
        log, out = made()
        log.event("saved", "there", folder=tmp_path)
        assert json.loads(out.getvalue())["folder"] == str(tmp_path)

    def test_no_bar(self):
        log, out = made(stream=Terminal())
        log.progress("50 %")
        assert out.getvalue() == ""


class TestText:
    def test_people_see_the_message(self):
        log, out = made("text")
        log.event("commit", "committed step 10", step=10)
        log.warning("inexact", "to rounding only")
        assert out.getvalue() == "committed step 10\nwarning: to rounding only\n"

    def test_a_bar_is_redrawn_and_gives_way_to_a_line(self):
        log, out = made("text", stream=Terminal())
        log.progress("step 10 of 10")
        log.progress("short")
        log.event("done", "done")
        lines = out.getvalue().split("\r")
        assert lines[1:3] == ["step 10 of 10", "short".ljust(len("step 10 of 10"))]
        assert lines[-1] == "done\n"
        assert out.getvalue().endswith("\rdone\n")

    def test_a_bar_never_wraps_whatever_the_terminal_s_width(self):
        with terminal(columns=20) as there:
            log, _ = made("text", stream=there.stream, secrets=("a-long-secret",))
            assert log.columns == 19
            log.progress("step 10 of 100, and more than fits")
            log.progress("a-long-secret, 11 of 100")
            log.event("commit", "committed")
            log.progress("12")
        assert there.seen() == ["committed", "12"]
        assert "and more" not in there.text
        assert "***, 11 of 100" in there.text

    def test_no_bar_in_a_file(self):
        log, out = made("text")
        log.progress("step 1")
        assert out.getvalue() == ""


ENVIRONMENT = {
    "HF_TOKEN": "hf_abcdefgh",
    "AWS_SECRET_ACCESS_KEY": "a-secret/with+signs",
    "WANDB_API_KEY": "0123456789abcdef",
    "MY_PASSWORD": "correct horse",
    "HOME": "/home/somebody",
    "SHORT_TOKEN": "true",
}


class TestSecrets:
    def test_they_are_known_by_their_names(self):
        assert set(secret_values(ENVIRONMENT)) == {"hf_abcdefgh", "a-secret/with+signs", "0123456789abcdef", "correct horse"}

    @pytest.mark.parametrize("mode", ["json", "text"])
    def test_no_line_has_one(self, mode):
        log, out = made(mode, secrets=secret_values(ENVIRONMENT))
        log.event("denied", "403 for hf_abcdefgh", url="https://x/?key=0123456789abcdef", home="/home/somebody")
        log.warning("denied", "correct horse was refused")
        assert not any(secret in out.getvalue() for secret in secret_values(ENVIRONMENT))
        assert "***" in out.getvalue()
        assert ("/home/somebody" in out.getvalue()) == (mode == "json")

    def test_nor_has_the_bar(self):
        log, out = made("text", stream=Terminal(), secrets=("hf_abcdefgh",))
        log.progress("fetching with hf_abcdefgh")
        assert "hf_abcdefgh" not in out.getvalue()

    @pytest.mark.parametrize("secret", ['quote"inside it', "back\\slash\\es", "ümlauts-and-ß", "line\nbreaks-in"])
    def test_json_spells_some_otherwise(self, secret):
        log, out = made(secrets=secret_values({"A_TOKEN": secret}))
        log.event("denied", f"no entry with {secret}")
        assert json.loads(out.getvalue())["message"] == "no entry with ***"

    def test_the_longest_goes_first(self):
        secrets = secret_values({"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefgh-and-more"})
        assert redacted("abcdefgh-and-more", secrets=secrets) == "***"


@pytest.mark.parametrize(
    ("choice", "stream", "mode"),
    [
        ("auto", Terminal(), "text"),
        ("auto", io.StringIO(), "json"),
        ("text", io.StringIO(), "text"),
        ("json", Terminal(), "json"),
    ],
)
def test_the_mode_follows_the_stream_unless_it_is_named(choice, stream, mode):
    assert resolve_mode(choice, stream=stream) == mode

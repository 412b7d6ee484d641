"""Every check runs, whatever the others do; what hangs costs its time-out; the first failure is the exit code."""

import threading

import pytest

from sdjob.core.errors import DeniedError, MissingError, UnavailableError
from sdjob.job.doctor.checkup import Check, Checkup
from sdjob.job.doctor.finding import Finding, exit_code_of, failed, ok, summary, warning, without_secrets
from sdjob.spec.problems import JobFileError, Problem


def raising(error):
    def look():
        yield ok("first", "fine.")
        raise error

    return look


def findings(*checks, timeout_s=30.0):
    checkup = Checkup(timeout_s)
    return list(checkup.findings([Check(name, look) for name, look in checks])), checkup


def test_each_error_is_a_finding_and_the_next_check_runs():
    found, checkup = findings(
        ("a", raising(MissingError("is not there.", where="s3://x", next_step="Look."))),
        ("b", raising(KeyError("x"))),
        ("c", lambda: [warning("c", "late.")]),
    )
    assert [(one.state, one.exit_code) for one in found] == [
        ("ok", 0),
        ("failed", 66),
        ("ok", 0),
        ("failed", 70),
        ("warning", 0),
    ]
    assert found[1].line() == "failed   a                s3://x: is not there. Look."
    assert found[3].what == "this is a fault of sdjob: KeyError: 'x'"
    assert checkup.hung == []


def test_all_problems_of_a_job_file():
    problems = [Problem("job.yaml", line, "train.steps", "is wrong") for line in (5, 9)]
    found, _ = findings(("job file", raising(JobFileError(problems))))
    assert [one.what for one in found[1:]] == ["job.yaml:5: train.steps: is wrong", "job.yaml:9: train.steps: is wrong"]
    assert exit_code_of(found) == 64


def test_a_hang_is_bounded_and_said_and_what_came_before_it_is_told():
    over = threading.Event()

    def hang():
        yield ok("slow", "the first answer.")
        over.wait()
        yield ok("slow", "too late.")

    try:
        found, checkup = findings(("slow", hang), ("next", lambda: [ok("next", "fine.")]), timeout_s=0.2)
    finally:
        over.set()
    assert [(one.check, one.state, one.exit_code) for one in found] == [
        ("slow", "ok", 0),
        ("slow", "failed", 74),
        ("next", "ok", 0),
    ]
    assert "no answer within 0.2 s" in found[1].what
    assert "--timeout" in found[1].next_step
    assert checkup.hung == ["slow"]


def test_the_first_line_that_failed_decides():
    lines = [ok("a", ""), failed("b", UnavailableError("x")), warning("c", ""), failed("d", DeniedError("y"))]
    assert exit_code_of(lines) == 69
    assert exit_code_of(lines[2:]) == 77
    assert exit_code_of([ok("a", ""), warning("b", "")]) == 0
    assert summary(lines) == "2 failed, 1 warning, 1 ok"


def test_a_place_that_is_the_checks_own_name_is_not_said_twice():
    assert failed("run.accelerator", UnavailableError("no.", where="run.accelerator")).where == ""
    assert failed("run.accelerator", UnavailableError("no.", where="/dev")).where == "/dev"


@pytest.mark.parametrize("secret", ["hf_" + "a" * 34, "AKIA" + "A" * 16, "http://me:word@proxy"])
def test_what_looks_like_a_secret_is_not_told(secret):
    told = without_secrets(Finding("ok", "x", f"via {secret}.").line())
    assert secret not in told
    assert "***" in told

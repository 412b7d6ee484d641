"""The text is read by Prometheus' own parser, and holds to its conventions for names."""

import math
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sdjob.job.vitals.exposition import exposition
from sdjob.job.vitals.signs import Signs
from unit.spec.jobs import job

FULL = Signs(
    phase="training",
    attempt=3,
    step=40,
    target_step=100,
    loss=0.125,
    grad_norm=1.5,
    learning_rate=1e-4,
    images_per_s=7.5,
    device_memory_mib=1024,
    num_images=160,
    data_wait_s=2.5,
    committed_step=20,
    committed_unix_s=1_700_000_000.0,
    commit_s=4.5,
    num_commits=2,
    committed_bytes=8192,
    stall_s=0.5,
    num_missed_saves=1,
)


def families(signs, *, unix_s=1_700_000_090.0, stopping=False):
    text = exposition(signs, job=job(), unix_s=unix_s, stopping=stopping)
    assert text.endswith("\n")
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(signs, **options):
    found = families(signs, **options)
    return {sample.name: sample.value for family in found.values() for sample in family.samples if not sample.labels}


def test_every_sign_is_told():
    assert values(FULL) == {
        "sdjob_attempt": 3,
        "sdjob_restarts_total": 2,
        "sdjob_step": 40,
        "sdjob_target_step": 100,
        "sdjob_loss": 0.125,
        "sdjob_grad_norm": 1.5,
        "sdjob_learning_rate": 1e-4,
        "sdjob_images_per_second": 7.5,
        "sdjob_images_total": 160,
        "sdjob_data_wait_seconds_total": 2.5,
        "sdjob_device_memory_peak_bytes": 2**30,
        "sdjob_last_commit_step": 20,
        "sdjob_last_commit_timestamp_seconds": 1_700_000_000,
        "sdjob_last_commit_age_seconds": 90,
        "sdjob_last_commit_duration_seconds": 4.5,
        "sdjob_commits_total": 2,
        "sdjob_commit_bytes_total": 8192,
        "sdjob_save_stall_seconds_total": 0.5,
        "sdjob_saves_missed_total": 1,
        "sdjob_stop_requested": 0,
    }


def test_what_is_not_known_is_left_out():
    known = values(Signs())
    assert not {"sdjob_step", "sdjob_loss", "sdjob_attempt", "sdjob_last_commit_age_seconds"} & {*known}
    assert known["sdjob_commits_total"] == 0


def test_kinds_and_names_are_prometheus_own():
    for name, family in families(FULL).items():
        assert family.type in {"gauge", "counter"}, name
        assert family.documentation.endswith("."), name
        assert {sample.name for sample in family.samples} == {name + "_total" if family.type == "counter" else name}
        assert not name.endswith(("_ms", "_mib", "_gib", "_minutes")), "base units"


def test_the_phase_is_one_of_a_set():
    found = {sample.labels["phase"]: sample.value for sample in families(FULL)["sdjob_phase"].samples}
    assert found == {"staging": 0, "starting": 0, "training": 1, "publishing": 0, "ended": 0}


def test_what_is_trained_stands_in_labels():
    (sample,) = families(Signs())["sdjob_run_info"].samples
    assert (sample.value, sample.labels["name"], sample.labels["method"], sample.labels["backend"]) == (
        1,
        "emoji",
        "lora",
        "torch",
    )


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number(loss):
    told = values(replace(FULL, loss=loss))["sdjob_loss"]
    assert told == loss or (math.isnan(told) and math.isnan(loss))


def test_a_commit_from_a_clock_that_is_ahead_is_new():
    assert values(FULL, unix_s=1_699_999_999.0)["sdjob_last_commit_age_seconds"] == 0


def test_a_stop_request_is_told():
    assert values(FULL, stopping=True)["sdjob_stop_requested"] == 1

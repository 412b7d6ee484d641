"""Life-cycle rules: those that would delete a run's objects, and no others."""

import datetime

import pytest

from sdjob.store.expiry import gcs_expiry, s3_expiry

DAYS = {"Days": 30}
AGE = {"age": 30}


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"Filter": {"Prefix": "runs/"}, "Expiration": DAYS}, True),
        ({"Filter": {"Prefix": "runs/x/blob/"}, "Expiration": DAYS}, True),
        ({"Filter": {"Prefix": ""}, "Expiration": DAYS}, True),
        ({"Prefix": "runs/x", "Expiration": DAYS}, True),
        ({"Filter": {"And": {"Prefix": "runs/", "ObjectSizeGreaterThan": 1}}, "Expiration": DAYS}, True),
        ({"Expiration": {"Date": datetime.date(2030, 1, 2)}}, True),
        ({"Filter": {"Prefix": "runs/y/"}, "Expiration": DAYS}, False),
        ({"Filter": {"Prefix": "logs/"}, "Expiration": DAYS}, False),
        ({"Filter": {"Prefix": "runs/"}, "Expiration": DAYS, "Status": "Disabled"}, False),
        ({"Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": DAYS}, False),
        ({"Filter": {"And": {"Prefix": "runs/", "Tags": [{"Key": "a", "Value": "b"}]}}, "Expiration": DAYS}, False),
        ({"NoncurrentVersionExpiration": {"NoncurrentDays": 1}}, False),
        ({"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}, False),
        ({"Expiration": {"ExpiredObjectDeleteMarker": True}}, False),
    ],
)
def test_rules_of_s3(rule, told):
    assert bool(s3_expiry([{"Status": "Enabled", "ID": "r", **rule}], prefix="runs/x/")) is told


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (AGE, True),
        ({**AGE, "matchesPrefix": ["logs/", "runs/"]}, True),
        ({"createdBefore": "2030-01-01"}, True),
        ({**AGE, "isLive": True}, True),
        ({**AGE, "matchesPrefix": ["logs/"]}, False),
        ({**AGE, "isLive": False}, False),
        ({"numNewerVersions": 3}, False),
        ({"daysSinceNoncurrentTime": 3}, False),
        ({"daysSinceCustomTime": 3}, False),
    ],
)
def test_rules_of_gcs(condition, told):
    assert bool(gcs_expiry([{"action": {"type": "Delete"}, "condition": condition}], prefix="runs/x/")) is told
    assert gcs_expiry([{"action": {"type": "SetStorageClass"}, "condition": condition}], prefix="runs/x/") == []


def test_a_sentence_says_what_and_when():
    rule = {"ID": "clean", "Status": "Enabled", "Filter": {"Prefix": "runs/"}, "Expiration": DAYS}
    assert s3_expiry([rule], prefix="runs/x/") == [
        "The rule clean deletes objects below 'runs/' 30 days after they were written."
    ]
    rule = {"action": {"type": "Delete"}, "condition": {**AGE, "matchesPrefix": ["runs/"]}}
    assert gcs_expiry([rule], prefix="") == [
        "A rule of the bucket deletes objects below 'runs/' 30 days after they were written."
    ]

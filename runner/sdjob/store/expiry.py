"""Life-cycle rules of a bucket that would delete what lies under a prefix: a slot that vanishes is damage to a run. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

Rule = Mapping[str, Any]


def s3_expiry(rules: Iterable[Rule], *, prefix: str) -> list[str]:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_LifecycleRule.html, as the SDK parses it."""
    return [
        f"The rule {rule.get('ID') or 'without a name'} deletes objects{_below(s3_prefix(rule))} {_when(rule['Expiration'])}."
        for rule in rules
        if rule.get("Status") == "Enabled" and _deletes(rule) and _touches(s3_prefix(rule), prefix) and not _has_tags(rule)
    ]


def s3_prefix(rule: Rule) -> str:
    filters: Rule = rule.get("Filter") or {}
    return filters.get("Prefix") or filters.get("And", {}).get("Prefix") or rule.get("Prefix") or ""


def _deletes(rule: Rule) -> bool:
    expiration: Rule = rule.get("Expiration") or {}
    return "Days" in expiration or "Date" in expiration


def _has_tags(rule: Rule) -> bool:
    """What sdjob writes has no tags, so no rule that asks for one concerns it."""
    filters: Rule = rule.get("Filter") or {}
    return bool(filters.get("Tag") or filters.get("And", {}).get("Tags"))


def _when(expiration: Rule) -> str:
    return f"{expiration['Days']} days after they were written" if "Days" in expiration else f"on {expiration['Date']:%Y-%m-%d}"


# Conditions that only older generations of an object, or objects with a field that sdjob never sets, can meet.
GCS_OTHERS = {"daysSinceNoncurrentTime", "noncurrentTimeBefore", "numNewerVersions", "customTimeBefore", "daysSinceCustomTime"}


def gcs_expiry(rules: Iterable[Rule], *, prefix: str) -> list[str]:
    """https://cloud.google.com/storage/docs/lifecycle: all conditions of a rule must hold at once."""
    found: list[str] = []
    for rule in rules:
        condition: Rule = rule.get("condition") or {}
        if rule.get("action", {}).get("type") != "Delete" or GCS_OTHERS & set(condition) or condition.get("isLive") is False:
            continue
        below = [start for start in condition.get("matchesPrefix") or [""] if _touches(start, prefix)]
        found += [f"A rule of the bucket deletes objects{_below(start)} {_gcs_when(condition)}." for start in below]
    return found


def _gcs_when(condition: Rule) -> str:
    if "age" in condition:
        return f"{condition['age']} days after they were written"
    if "createdBefore" in condition:
        return f"that were written before {condition['createdBefore']}"
    return "that meet its conditions"


def _touches(rule_prefix: str, prefix: str) -> bool:
    return prefix.startswith(rule_prefix) or rule_prefix.startswith(prefix)


def _below(rule_prefix: str) -> str:
    return f" below '{rule_prefix}'" if rule_prefix else ""

"""Values that must not stand in a job file: it is stored with the run, and published in parts."""

import re

# What tokens look like, by their issuers' own prefixes.
SECRETS = {
    "a Hub token": re.compile(r"\bhf_[A-Za-z0-9]{10,}"),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{12,}"),
    "a Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{30,}"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a URL with a password": re.compile(r"://[^/\s:@]*:[^/\s@]+@"),
}


def secret_kind(text: str) -> str | None:
    """What a text looks like, where it looks like a secret."""
    return next((kind for kind, pattern in SECRETS.items() if pattern.search(text)), None)


def looks_secret(text: str) -> bool:
    return secret_kind(text) is not None

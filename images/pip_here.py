"""What pip on this machine is told, in a form that a build can be lent."""

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Where packages come from; all else that a machine tells its pip is about the machine.
# https://pip.pypa.io/en/stable/cli/pip_install/#options
SOURCES = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "default-timeout", "timeout")
CERTIFICATES_IN_BUILD = "/run/secrets/ca.pem"


@dataclass(frozen=True)
class PipHere:
    configuration: str
    """A pip.conf."""
    certificates: Path | None
    """The bundle that connections are checked against, where it is not pip's own."""
    folders: list[Path]
    """Named in the configuration: a build must see them under the same names."""


def pip_here() -> PipHere:
    listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True).stdout
    return lent(options(listing), environment=dict(os.environ))


def options(listing: str) -> dict[str, str]:
    """Of `pip config list`, by name: the environment's before `[install]` before `[global]`, as pip itself reads them."""
    pairs = [line.partition("=") for line in listing.splitlines()]
    found: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):
        mine = [(name.removeprefix(section), value) for name, _, value in pairs if name.startswith(section)]
        found |= {name: str(ast.literal_eval(value)) for name, value in mine}
    return found


def lent(told: dict[str, str], *, environment: dict[str, str]) -> PipHere:
    certificates = told.get("cert") or environment.get("SSL_CERT_FILE") or environment.get("REQUESTS_CA_BUNDLE")
    sources = {name: told[name] for name in SOURCES if name in told}
    lines = [f"{name} = {' '.join(value.split())}" for name, value in sources.items()]
    if certificates:
        lines.append(f"cert = {CERTIFICATES_IN_BUILD}")
    found = {folder for value in sources.values() for word in value.split() if (folder := folder_of(word))}
    return PipHere(
        configuration="\n".join(["[global]", *lines]) + "\n",
        certificates=Path(certificates) if certificates else None,
        folders=sorted(found),
    )


def folder_of(word: str) -> Path | None:
    """Of this machine. An index's pages name wheels beside it, so that its parent is lent."""
    if word.startswith("file://"):
        return Path(unquote(urlsplit(word).path)).parent
    return Path(word) if word.startswith("/") and Path(word).is_dir() else None

"""Python environments with a part of what is installed here: what an image with fewer extras would have."""

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SITE = Path(sysconfig.get_path("purelib"))


def make_environment(folder: Path, *, extras: set[str]) -> Path:
    """The Python of an environment that holds `sdjob[extras]`, what that requires, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = folder.joinpath(*SITE.relative_to(sys.prefix).parts)
    for name in required("sdjob", extras=extras, known=set()):
        for entry in entries_of(name):
            if not (packages / entry).exists():
                (packages / entry).symlink_to(SITE / entry)
    return folder / "bin" / "python"


def required(name: str, *, extras: set[str], known: set[tuple[str, frozenset[str]]]) -> set[str]:
    """Names of distributions: the given one, and those that it requires with these extras."""
    name = canonicalize_name(name)
    if (name, frozenset(extras)) in known:
        return set()
    known.add((name, frozenset(extras)))
    found = {name}
    for requirement in map(Requirement, metadata.requires(name) or []):
        markers = [{"extra": extra} for extra in (extras or {""})]
        if requirement.marker is None or any(requirement.marker.evaluate(marker) for marker in markers):
            found |= required(requirement.name, extras=requirement.extras, known=known)
    return found


def entries_of(name: str) -> set[str]:
    """Of the folder of packages; what lies elsewhere (commands) is left out."""
    files = metadata.files(name) or []
    return {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}

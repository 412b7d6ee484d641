"""Prints what pyproject.toml says must be installed, for `pip install -r`: `requirements.py EXTRA...`.

The images install this in a layer of its own, below sdjob's: it changes when requirements change, not when code does.
"""

import sys
import tomllib
from pathlib import Path


def requirements(project: dict, *, extras: list[str]) -> list[str]:
    """`project` is the table of pyproject.toml; its own dependencies are the extra named "sdjob"."""
    offered = {"sdjob": project["dependencies"], **project["optional-dependencies"]}
    return [requirement for extra in extras for requirement in offered[extra]]


if __name__ == "__main__":
    table = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    sys.stdout.write("\n".join(requirements(table, extras=sys.argv[1:])) + "\n")

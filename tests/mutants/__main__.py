"""`make mutants`: each mutant in a copy of the tree, the tests that are named for it, and the share that they catch.

PYTHONPATH=tests .venv/bin/python -m mutants               # all; exit 1 where one survives that should not, or is stale
PYTHONPATH=tests .venv/bin/python -m mutants --only nonce  # those whose name has the word
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutants.catalog import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
LEAST_CAUGHT = 0.95
LONGEST_S = 300  # a mutant that never ends is caught
TREE = ("runner", "tests", "jobspecs", "pyproject.toml")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants", description="Breaks our own code and sees whether tests notice.")
    parser.add_argument("--only", default="", help="those whose name has this")
    options = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if options.only in mutant.name]
    with tempfile.TemporaryDirectory(prefix="sdjob-mutants-") as folder:
        copy = copied(Path(folder))
        stale = [mutant for mutant in mutants if (copy / mutant.file).read_text(encoding="utf-8").count(mutant.old) != 1]
        for mutant in stale:
            say(f"STALE {mutant.name}: its text is not in {mutant.file} exactly once")
        caught = {mutant.name: is_caught(mutant, copy=copy) for mutant in mutants if mutant not in stale}
    return verdict(mutants, caught=caught, stale=stale)


def copied(folder: Path) -> Path:
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, folder / name)
    return folder


def is_caught(mutant: Mutant, *, copy: Path) -> bool:
    """Whether a test fails with the mutant in the copy, which is whole again afterwards."""
    file = copy / mutant.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.replace(mutant.old, mutant.new), encoding="utf-8")
    started_s = time.monotonic()
    try:
        failed = first_failure(mutant.tests, copy=copy)
    finally:
        file.write_text(whole, encoding="utf-8")
    word = "caught" if failed else "ALIVE "
    say(f"{word} {time.monotonic() - started_s:4.0f} s  {mutant.name}: {failed or mutant.survives or '?'}")
    return failed is not None


def first_failure(tests: tuple[str, ...], *, copy: Path) -> str | None:
    """The test that failed; the copy's own package is imported, since PYTHONPATH comes before what is installed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy / "runner"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return "it never ends"
    if run.returncode == 0:
        return None
    if found := re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE):
        return found[1]
    raise RuntimeError(f"pytest said {run.returncode}:\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")


def verdict(mutants: list[Mutant], *, caught: dict[str, bool], stale: list[Mutant]) -> int:
    alive = [mutant for mutant in mutants if not caught.get(mutant.name, True)]
    for mutant in alive:
        say(f"survivor: {mutant.name}: {mutant.survives or 'no test noticed'}")
    share = sum(caught.values()) / max(1, len(caught))
    say(f"{sum(caught.values())} of {len(caught)} mutants caught ({share:.1%}); {len(stale)} stale")
    unexplained = [mutant for mutant in alive if not mutant.survives]
    return 1 if stale or unexplained or share < LEAST_CAUGHT else 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

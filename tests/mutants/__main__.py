"""`make mutants`: each mutant in a copy of the tree, the tests that are named for it, and the share that they catch.

PYTHONPATH=tests .venv/bin/python -m mutants               # all; exit 1 where one survives that should not, or is stale
PYTHONPATH=tests .venv/bin/python -m mutants --only nonce  # those whose name or file has the word
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import pytest

from mutants.catalog import MUTANTS
from mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
LEAST_CAUGHT = 0.95
FAULT = 70  # of this program's own
LONGEST_S = 300  # a mutant that never ends is caught
SLOW_TO_IMPORT = ("numpy", "pydantic", "yaml", "torch", "diffusers")  # not jax: it may not be forked
TREE = ("runner", "tests", "jobspecs", "pyproject.toml")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants", description="Breaks our own code and sees whether tests notice.")
    parser.add_argument("--only", default="", help="those whose name or file has this")
    options = parser.parse_args(arguments)
    mutants = [mutant for mutant in MUTANTS if options.only in mutant.name or options.only in mutant.file]
    for name in SLOW_TO_IMPORT:
        import_module(name)
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
    """The test that failed. In a fork of this process, which has imported what takes long, and nothing of ours."""
    output = copy / "pytest.txt"
    child = os.fork()
    if child == 0:
        run_tests(tests, copy=copy, output=output)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = output.read_text(encoding="utf-8", errors="replace")
    if code == 0:
        return None
    if code == -signal.SIGALRM:
        return "it never ends"
    if found := re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE):
        return found[1]
    raise RuntimeError(f"pytest ended with {code}:\n{said[-3000:]}")


def run_tests(tests: tuple[str, ...], *, copy: Path, output: Path) -> NoReturn:
    """Never returns, whatever happens: this is a fork."""
    code = FAULT
    try:
        signal.alarm(LONGEST_S)
        os.chdir(copy)
        sys.path.insert(0, str(copy / "runner"))
        sys.dont_write_bytecode = True
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none is needed, and each takes its time
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


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

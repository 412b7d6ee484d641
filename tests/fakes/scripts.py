"""The repository's own scripts, as a person starts them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def script(path: str, *arguments: str, root: Path = ROOT) -> str:
    """stdout and stderr."""
    command = [sys.executable, root / path, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def sdjob(*arguments: str) -> str:
    """stdout of the command line, in the repository's root."""
    command = [Path(sys.executable).with_name("sdjob"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout

"""An `nvidia-smi` on the PATH that answers as the real one does, for machines without a GPU."""

from pathlib import Path

import pytest

ANSWERS = {
    "l4": ("NVIDIA L4", "550.54.15", "23034", "8.9"),
    "t4": ("Tesla T4", "535.104.05", "15360", "7.5"),
    "a100": ("NVIDIA A100-SXM4-40GB", "550.54.15", "40960", "8.0"),
}


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str, old: bool = False, script: str | None = None) -> None:
    """`old`: a driver's tool that does not know compute_cap and answers nothing; `script`: any other behaviour."""
    rows = [ANSWERS[name] for name in names]
    answer = "".join(", ".join(row) + "\n" for row in rows)
    short = "".join(row[0] + "\n" for row in rows)
    refuse = 'echo "Field \\"compute_cap\\" is not a valid field to query." >&2; exit 2' if old else f"printf '%s' '{answer}'"
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(script or f"#!/bin/sh\ncase \"$1\" in *compute_cap*) {refuse} ;; *) printf '%s' '{short}' ;; esac\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")

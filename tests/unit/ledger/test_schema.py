"""What the code tells a ledger stands in its schema, and nothing else does."""

import ast
import re
from pathlib import Path

from sdjob.ledger.seconds import BUCKETS, PHASES
from sdjob.ledger.write import SCHEMA

RUNNER = Path(__file__).parents[3] / "runner" / "sdjob"
TEXT = (RUNNER / "ledger" / "SCHEMA.md").read_text(encoding="utf-8")


def told(function: str) -> set[str]:
    """The first argument of every such call in the code, where it is written out."""
    calls = (
        node for path in RUNNER.rglob("*.py") for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    )
    named = (call for call in calls if ast.unparse(call.func).endswith(function) and call.args)
    return {str(call.args[0].value) for call in named if isinstance(call.args[0], ast.Constant)}


def section(title: str) -> str:
    return TEXT.partition(f"## {title}")[2].partition("\n## ")[0]


def first_cells(text: str) -> set[str]:
    cells = (line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    return {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)}


def test_every_kind_of_event_is_documented_and_told():
    through_others = {"publish-failed", "publish-skipped", "track-dropped"}  # told by way of a function
    assert first_cells(section("Events")) == told("ledger.event") | through_others


def test_every_phase_is_documented_and_told():
    documented = set(re.findall(r"`([\w-]+)`", section("Events").partition("Names of phases:")[2]))
    tellers = ("watch.lap", "watch.apart", "_tell_lap", "timed", "_timed")
    phases = {"compile", "start-to-first-step"}.union(*map(told, tellers))
    assert documented == phases
    assert set(PHASES) <= documented


def test_every_bucket_is_documented():
    assert first_cells(section("Every second")) == set(BUCKETS)
    assert f"version {SCHEMA}" in TEXT.splitlines()[0]

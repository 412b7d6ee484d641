"""Prints which store does what, in Markdown, from a run of the contract: `python tests/contract/table.py`."""

import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # where pytest's `pythonpath` leads

from contract.rows import ROWS  # noqa: E402

Results = dict[str, dict[str, list[bool]]]


class Collector:
    """Of each test, in the order of the file: of each store, how its cases ended."""

    def __init__(self) -> None:
        self.results: Results = defaultdict(lambda: defaultdict(list))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        name, _, case = report.nodeid.rpartition("::")[2].partition("[")
        store = max((row for row in ROWS if f"-{row}-" in f"-{case.rstrip(']')}-"), key=len, default=None)
        if store is not None:
            self.results[name][store].append(report.passed)


def markdown(results: Results) -> str:
    lines = [f"| | {' | '.join(ROWS)} |", f"|---|{'---|' * len(ROWS)}"]
    for name, by_store in results.items():
        words = name.removeprefix("test_").replace("_", " ")
        lines.append(f"| {words} | {' | '.join(mark(by_store.get(store, [])) for store in ROWS)} |")
    return "\n".join(lines)


def mark(cases: list[bool]) -> str:
    """Empty where the property is not asked of this store."""
    return ("yes" if all(cases) else "NO") if cases else ""


if __name__ == "__main__":
    collector = Collector()
    code = pytest.main([str(HERE / "test_stores.py"), "-q", "-p", "no:terminal"], plugins=[collector])
    sys.stdout.write(markdown(collector.results) + "\n")
    sys.exit(code)

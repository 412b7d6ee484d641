"""Prints which store does what, in Markdown, from a run of the contract: `python tests/contract/table.py`."""

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@dataclass
class Results:
    """A plugin of pytest's: how each case ended, as (test, its parameters, passed)."""

    cases: list[tuple[str, str, bool]] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            name, _, parameters = report.nodeid.rpartition("::")[2].removesuffix("]").partition("[")
            self.cases.append((name, parameters, report.passed))


def markdown(results: Results, *, stores: list[str]) -> str:
    lines = [f"| | {' | '.join(stores)} |", f"|---|{'---|' * len(stores)}"]
    for name in dict.fromkeys(name for name, _, _ in results.cases):
        by_store: dict[str, list[bool]] = {store: [] for store in stores}
        for case, parameters, passed in results.cases:
            if case == name:
                by_store[store_of(parameters, stores=stores)].append(passed)
        lines.append(f"| {name.removeprefix('test_').replace('_', ' ')} | {' | '.join(map(mark, by_store.values()))} |")
    return "\n".join(lines)


def store_of(parameters: str, *, stores: list[str]) -> str:
    """Of `s3-moto-1048576` it is `s3-moto`: the longest that fits."""
    return max((store for store in stores if f"-{store}-" in f"-{parameters}-"), key=len)


def mark(cases: list[bool]) -> str:
    """Empty where the property is not asked of this store."""
    return ("yes" if all(cases) else "NO") if cases else ""


if __name__ == "__main__":
    results = Results()
    with redirect_stdout(sys.stderr):
        code = pytest.main([str(HERE / "test_stores.py"), "-q"], plugins=[results])
    from contract.rows import ROWS  # only now: pytest complains of SDKs that were imported before it

    sys.stdout.write(markdown(results, stores=list(ROWS)) + "\n")
    sys.exit(code)

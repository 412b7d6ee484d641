"""What fell on the runs that were struck at random, row by row, at the end; whichever of the processes of pytest ran them."""

from collections import Counter, defaultdict
from typing import Any

from fakes.blows import BLOWS, ROW


def pytest_terminal_summary(terminalreporter: Any) -> None:
    runs: Counter[str] = Counter()
    fallen: dict[str, Counter[str]] = defaultdict(Counter)
    for report in terminalreporter.stats.get("passed", []):
        for kind, blows in (value for name, value in report.user_properties if name == ROW and report.when == "call"):
            runs[kind] += 1
            fallen[kind].update(blows)
    if runs:
        terminalreporter.section("struck at random; every final digest is the uninterrupted run's")
        terminalreporter.write_line(" | ".join(["place", "runs", *BLOWS, "all"]))
    for kind, blows in fallen.items():
        terminalreporter.write_line(" | ".join(map(str, [kind, runs[kind], *(blows[blow] for blow in BLOWS), blows.total()])))

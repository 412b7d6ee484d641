"""Many schedules added up: how many, how different from one another, which failed."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from simulator.histories import Outcome


@dataclass
class Tally:
    sampled: int = 1
    """One way and one state in so many is counted; 1: all of them."""

    schedules: int = 0
    calls: int = 0
    ways: set[int] = field(default_factory=set[int])
    states: set[int] = field(default_factory=set[int])
    failures: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def count(self, name: str, outcome: Outcome) -> None:
        self.schedules += 1
        self.calls += outcome.num_calls
        self.ways.update(way for way in (outcome.way,) if way % self.sampled == 0)
        self.states.update(state for state in outcome.states if state % self.sampled == 0)
        if outcome.violations:
            self.failures[name] = outcome.violations

    def add(self, other: "Tally") -> None:
        self.schedules += other.schedules
        self.calls += other.calls
        self.ways |= other.ways
        self.states |= other.states
        self.failures.update(other.failures)

    def failure_lines(self) -> list[str]:
        return [f"FAILED {name}: {'; '.join(violations)}" for name, violations in self.failures.items()]

    def sentence(self, seconds: float) -> str:
        about = "about " if self.sampled > 1 else ""
        return (
            f"{self.schedules:,} schedules ({self.schedules / seconds:.0f} a second), {self.calls:,} store calls, "
            f"{about}{len(self.ways) * self.sampled:,} different ways, "
            f"{about}{len(self.states) * self.sampled:,} states of the bucket, {len(self.failures)} failed"
        )


def tally_of(outcomes: Iterable[tuple[str, Outcome]], *, sampled: int = 1, most_failures: int = 5) -> Tally:
    """Ends early where so many have failed: they tell enough."""
    tally = Tally(sampled=sampled)
    for name, outcome in outcomes:
        tally.count(name, outcome)
        if len(tally.failures) == most_failures:
            break
    return tally

"""The table of a run's attempts, from the ledger, and what Kubernetes knows of their pods. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdjob.cluster.endings import Ending
from sdjob.ledger.read import AttemptLedger, Record


@dataclass(frozen=True)
class AttemptRow:
    number: int
    host: str
    started_s: float
    last_s: float
    """Of its last word."""
    ended: bool
    cause: str
    first_step: int
    """Committed when it began."""
    committed_step: int
    reached_step: int
    """The last that its metrics tell of; those beyond the last commit are done again."""

    @property
    def gained(self) -> int:
        return self.committed_step - self.first_step

    @property
    def lost(self) -> int:
        return max(0, self.reached_step - self.committed_step) if self.ended else 0


def attempt_rows(ledgers: Sequence[AttemptLedger], *, endings: Mapping[str, Ending]) -> list[AttemptRow]:
    """`endings`: of pods by their names, which are the attempts' host names."""
    rows: list[AttemptRow] = []
    committed = 0
    for position, ledger in enumerate(ledgers):
        row = attempt_row(ledger, first_step=committed, endings=endings, superseded=position < len(ledgers) - 1)
        committed = row.committed_step
        rows.append(row)
    return rows


def attempt_row(ledger: AttemptLedger, *, first_step: int, endings: Mapping[str, Ending], superseded: bool) -> AttemptRow:
    records = [*ledger.events, *ledger.metrics]
    times = [record["time_s"] for record in records]
    host = str(next((event.get("host", "") for event in ledger.events if event["kind"] == "start"), ""))
    committed = max([first_step, *steps(ledger.events, kind="commit")])
    end = next((event for event in reversed(ledger.events) if event["kind"] == "end"), None)
    ending = endings.get(host)
    return AttemptRow(
        number=ledger.attempt,
        host=host,
        started_s=min(times, default=0.0),
        last_s=max(times, default=0.0),
        ended=end is not None or ending is not None or superseded,
        cause=cause_of(end, ending=ending, superseded=superseded),
        first_step=first_step,
        committed_step=committed,
        reached_step=max([committed, *(record["step"] for record in ledger.metrics if "step" in record)]),
    )


def steps(events: Sequence[Record], *, kind: str) -> list[int]:
    return [event["step"] for event in events if event["kind"] == kind and "step" in event]


def cause_of(end: Record | None, *, ending: Ending | None, superseded: bool) -> str:
    """A machine that was taken away is the cause even where the attempt could still say that it was stopped."""
    if ending and ending.kind in {"preempted", "out of memory", "killed", "gone"}:
        return f"{ending.kind}: {ending.why}"
    if end is not None:
        code = end.get("exit_code")
        return "done" if code == 0 else f"exit {code}: {end.get('why', '')}".rstrip(": ")
    if ending is not None:
        return ending.why
    return "lost without a word" if superseded else "running"

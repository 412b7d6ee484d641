"""Where the time went: the whole run on one axis, what each part took, and each attempt by itself. Pure."""

from collections.abc import Iterator

from sdjob.ledger.moments import Moments
from sdjob.ledger.read import AttemptLedger
from sdjob.ledger.seconds import Account, AttemptAccount
from sdjob.report.gather import Gathered
from sdjob.report.html import Html, table, tag
from sdjob.report.overview import Section, section
from sdjob.report.timeline import LABELS, MEANINGS, attempt_bar, run_bar
from sdjob.report.words import at, lasted, share

MOST_ATTEMPTS = 200


def time(run: Gathered, *, sums: Account) -> Section:
    if not sums.attempts:
        return section("time", "Where the time went", tag("p", "No attempt has told a time."))
    shown = sums.attempts[-MOST_ATTEMPTS:]
    left_out = len(sums.attempts) - len(shown)
    ends = tag("span", at(sums.attempts[0].began_s)), tag("span", at(max(attempt.ended_s for attempt in sums.attempts)))
    return section(
        "time",
        "Where the time went",
        run_bar(sums),
        tag("p", *ends, class_="axis"),
        buckets(sums),
        tag("h3", "Attempts"),
        tag("p", f"The last {MOST_ATTEMPTS} of {len(sums.attempts)}.", class_="fine") if left_out else None,
        tag("ol", *items(run, shown=shown), class_="attempts"),
    )


def buckets(sums: Account) -> Html:
    seconds, total = sums.seconds(), sum(sums.seconds().values())
    rows = (
        (
            tag("span", label, class_=f"swatch b-{bucket}"),
            lasted(seconds[bucket]),
            share(seconds[bucket], total),
            MEANINGS[bucket],
        )
        for bucket, label in LABELS.items()
        if seconds[bucket] > 0
    )
    whole = ("Together", lasted(total), share(total, total), "every second of the run")
    return table("What the seconds went to", head=("Part", "Time", "Share", "What it is"), rows=[*rows, whole], class_="buckets")


def items(run: Gathered, *, shown: tuple[AttemptAccount, ...]) -> Iterator[Html]:
    longest_s = max(attempt.wall_s for attempt in shown)
    ledgers = {ledger.attempt: ledger for ledger in run.ledgers}
    for attempt in shown:
        lost = attempt.reached_step - attempt.kept_step
        steps = f"steps {attempt.start_step:,} to {attempt.kept_step:,}" + (f", {lost:,} lost" if lost else "")
        yield tag(
            "li",
            tag(
                "p",
                tag("strong", f"Attempt {attempt.attempt}"), " ",
                tag("span", f"{lasted(attempt.wall_s)}, {steps}"), " ",
                tag("span", f"from {at(attempt.began_s)}", class_="fine"),
            ),
            attempt_bar(attempt, longest_s=longest_s),
            tag("p", ending(ledgers[attempt.attempt], attempt), class_="fine ending"),
        )  # fmt: skip


def ending(ledger: AttemptLedger, attempt: AttemptAccount) -> str:
    end = Moments(ledger).end
    if end is None:
        return "killed, or its machine went" if attempt.is_over else "its last word so far"
    why = str(end.get("why", ""))
    return "done" if end.get("exit_code") == 0 else f"exit {end.get('exit_code')}: {why}"

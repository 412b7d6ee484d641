"""The sections below the top: curves, time, samples, and what the run was made of. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from sdjob.ledger.moments import Moments
from sdjob.ledger.read import AttemptLedger
from sdjob.ledger.seconds import Account, AttemptAccount
from sdjob.report.gather import Gathered
from sdjob.report.html import Html, joined, table, tag
from sdjob.report.overview import section
from sdjob.report.pictures import Album
from sdjob.report.series import Chart, evenly
from sdjob.report.timeline import LABELS, MEANINGS, attempt_bar, run_bar
from sdjob.report.words import at, counted, figure, lasted, share, size

MOST_ATTEMPTS, MOST_COMMITS = 200, 100
TABLE_ROWS = 12  # of the figures behind a curve


# ---- curves ----------------------------------------------------------------------------------------------------------------


def curves(charts: Sequence[Chart]) -> Html:
    if not charts:
        return section("curves", "Curves", tag("p", "No step is told of yet."))
    scrubber = tag(
        "p",
        tag("label", "Step ", tag("output", "", id="scrub-step"), for_="scrub"),
        tag("input", type="range", id="scrub", min="0", max="1", value="0", step="1"),
        class_="scrub",
    )
    legend = tag(
        "p",
        tag("span", "each step", class_="key k-line"), " ",
        tag("span", "mean", class_="key k-smooth"), " ",
        tag("span", "lost, trained again", class_="key k-lost"), " ",
        tag("span", "held out", class_="key k-extra") if any(chart.extra for chart in charts) else None, " ",
        tag("span", "an attempt begins", class_="key k-mark"),
        class_="legend",
    )  # fmt: skip
    return section("curves", "Curves", scrubber, legend, tag("div", *map(curve, charts), class_="charts"))


def curve(chart: Chart) -> Html:
    unit = f" ({chart.unit})" if chart.unit else ""
    head = tag("h3", chart.title, tag("small", unit) if unit else None, " ", tag("output", "", class_="readout", for_="scrub"))
    drawing = tag("div", class_="plot", data_chart=chart.key, role="img", aria_label=summary(chart))
    odd = (
        tag("p", f"No number at {counted(len(chart.not_finite), 'step')}, first at step {chart.not_finite[0]}.")
        if chart.not_finite
        else None
    )
    figures = tag(
        "details",
        tag("summary", f"{chart.title} in figures"),
        table(f"{chart.title} by step", head=("Step", "Value", "Attempt"), rows=few(chart)),
    )
    return tag("article", head, drawing, odd, figures, class_="chart")


def summary(chart: Chart) -> str:
    values = [value for segment in chart.segments for value in segment.values]
    if not values:
        return f"{chart.title}: no number."
    first, last = chart.segments[0], chart.segments[-1]
    ends = f"{figure(first.values[0])} at step {first.steps[0]}, {figure(last.values[-1])} at step {last.steps[-1]}"
    return f"{chart.title} over steps: {ends}; least {figure(min(values))}, greatest {figure(max(values))}."


def few(chart: Chart) -> Iterator[tuple[str, str, str]]:
    points = {
        s: (v, segment.attempt)
        for segment in chart.segments
        if not segment.is_lost
        for s, v in zip(segment.steps, segment.values, strict=True)
    }
    for step in evenly(sorted(points), most=TABLE_ROWS):
        value, attempt = points[step]
        yield f"{step:,}", figure(value), str(attempt)


# ---- time ------------------------------------------------------------------------------------------------------------------


def time(run: Gathered, *, sums: Account) -> Html:
    if not sums.attempts:
        return section("time", "Where the time went", tag("p", "No attempt has told a time."))
    rows = attempt_rows(run, sums=sums)
    left_out = len(sums.attempts) - MOST_ATTEMPTS
    return section(
        "time",
        "Where the time went",
        run_bar(sums),
        tag(
            "p", tag("span", at(sums.attempts[0].began_s)), tag("span", at(max(a.ended_s for a in sums.attempts))), class_="axis"
        ),
        buckets(sums),
        tag("p", f"The last {MOST_ATTEMPTS} of {len(sums.attempts)}.") if left_out > 0 else None,
        table(
            "Attempts",
            head=("Attempt", "Began", "Lasted", "Steps", "Lost", "Seconds", "How it ended"),
            rows=rows,
            class_="attempts wrap",
        ),
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


def attempt_rows(run: Gathered, *, sums: Account) -> Iterator[tuple[Html | str, ...]]:
    shown = sums.attempts[-MOST_ATTEMPTS:]
    longest_s = max(attempt.wall_s for attempt in shown)
    ledgers = {ledger.attempt: ledger for ledger in run.ledgers}
    for attempt in shown:
        lost = attempt.reached_step - attempt.kept_step
        yield (
            str(attempt.attempt),
            at(attempt.began_s),
            lasted(attempt.wall_s),
            f"{attempt.start_step:,} to {attempt.kept_step:,}",
            counted(lost, "step") if lost else "-",
            attempt_bar(attempt, longest_s=longest_s),
            ending(ledgers[attempt.attempt], attempt),
        )


def ending(ledger: AttemptLedger, attempt: AttemptAccount) -> str:
    end = Moments(ledger).end
    if end is None:
        return "killed, or its machine went" if attempt.is_over else "its last word so far"
    why = str(end.get("why", ""))
    return "done" if end.get("exit_code") == 0 else f"exit {end.get('exit_code')}: {why}"


# ---- samples ---------------------------------------------------------------------------------------------------------------


def samples(album: Album) -> Html | None:
    if not album.drawn and not album.num_unreadable:
        return None
    steps = sorted({picture.step for picture in album.drawn})
    notes: list[Html] = []
    if len(steps) < album.num_steps:
        notes.append(tag("p", f"{len(steps)} of the {album.num_steps} steps that have pictures are shown.", class_="fine"))
    if album.num_unreadable:
        notes.append(tag("p", f"{counted(album.num_unreadable, 'picture')} could not be read.", class_="fine"))
    if not steps:
        return section("samples", "Samples", *notes)
    slider = tag(
        "p",
        tag("label", "Step ", tag("output", f"{steps[-1]:,}", id="sample-step"), for_="sample"),
        tag("input", type="range", id="sample", min="0", max=str(len(steps) - 1), value=str(len(steps) - 1), step="1"),
        class_="scrub",
    )
    return section(
        "samples",
        "Samples",
        slider,
        tag("div", id="sample-grid", class_="grid"),
        tag(
            "details",
            tag("summary", "All steps side by side"),
            tag("div", id="sample-strip", class_="scroll", tabindex="0", role="region", aria_label="Samples over steps"),
        ),
        *notes,
    )


# ---- what it was made of ---------------------------------------------------------------------------------------------------


def job_file(run: Gathered) -> Html:
    if not run.job_text:
        return section("job", "Job file", tag("p", "The run has not stored its job file yet."))
    return section(
        "job",
        "Job file",
        tag("pre", tag("code", run.job_text), tabindex="0", role="region", aria_label="The job file, with its defaults"),
    )


def environment(run: Gathered) -> Html | None:
    rows: list[tuple[str, str]] = []
    for ledger in run.ledgers[-1:]:
        moments = Moments(ledger)
        rows += [("host", str(event.get("host", ""))) for event in moments.of("start")]
        for event in moments.of("ready"):
            rows += list(flat(event.get("fingerprint")))
            rows += [("resume", f"right to rounding, not bit-exact: {why}") for why in listed(event.get("inexact"))]
    if not rows:
        return None
    return section("environment", "Environment", table("Of the last attempt", head=("What", "Value"), rows=rows, class_="wrap"))


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A nested mapping as dotted names."""
    if isinstance(value, dict):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from flat(inner, f"{name}.{key}" if name else str(key))  # pyright: ignore[reportUnknownArgumentType]
    elif value is not None and name:
        yield name, str(value)


def listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def digests(run: Gathered) -> Html | None:
    commits = run.history.commits[-MOST_COMMITS:]
    if not commits:
        return None
    done = run.history.done
    final = None
    if done is not None:
        final = tag("p", "The result: step ", f"{done.step:,}", ", digest ", tag("code", done.digest), ".")
        final = joined([final, published(run.published)])
    rows = (
        (
            f"{commit.step:,}",
            at(commit.time_s),
            size(commit.size_bytes),
            commit.state,
            tag("code", commit.digest[:16], title=commit.digest),
        )
        for commit in reversed(commits)
    )
    head = ("Step", "Committed", "Size", "State", "Digest")
    return section("commits", "Commits", final, table("Commits, the newest first", head=head, rows=rows))


def published(places: Sequence[str]) -> Html | None:
    if not places:
        return None
    return tag("div", tag("p", "Published to:"), tag("ul", *(tag("li", place, class_="place") for place in places)))

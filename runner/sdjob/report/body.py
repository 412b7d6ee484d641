"""The sections below the top: curves, samples, and what the run was made of. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from sdjob.ledger.moments import Moments
from sdjob.report.gather import Gathered
from sdjob.report.html import Html, joined, table, tag
from sdjob.report.overview import Section, section
from sdjob.report.pictures import Album
from sdjob.report.series import Chart, evenly
from sdjob.report.words import at, counted, figure, size

MOST_COMMITS = 100
TABLE_ROWS = 12  # of the figures behind a curve


# ---- curves ----------------------------------------------------------------------------------------------------------------


def curves(charts: Sequence[Chart], *, num_attempts: int) -> Section:
    if not charts:
        return section("curves", "Curves", tag("p", "No step is told of yet."))
    scrubber = tag(
        "p",
        tag("label", "Step ", tag("output", "", id="scrub-step"), for_="scrub"),
        tag("input", type="range", id="scrub", min="0", max="1", value="0", step="1"),
        class_="scrub",
    )
    keys = {"k-line": "each step"}
    keys |= {"k-smooth": "mean"} if any(chart.smooth for chart in charts) else {}
    keys |= {"k-lost": "lost work"} if any(segment.is_lost for chart in charts for segment in chart.segments) else {}
    keys |= {"k-extra": "held out"} if any(chart.extra for chart in charts) else {}
    keys |= {"k-mark": "an attempt begins"} if num_attempts > 1 else {}
    legend = tag("p", *(tag("span", words, class_=f"key {key}") for key, words in keys.items()), class_="legend")
    return section("curves", "Curves", scrubber, legend, tag("div", *map(curve, charts), class_="charts"))


def curve(chart: Chart) -> Html:
    unit = f" ({chart.unit})" if chart.unit else ""
    head = tag(
        "h3",
        chart.title,
        tag("small", unit) if unit else None,
        " ",
        tag("output", "", class_="readout", for_="scrub", aria_live="off"),
    )
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


# ---- samples ---------------------------------------------------------------------------------------------------------------


def samples(album: Album) -> Section | None:
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


def job_file(run: Gathered) -> Section:
    if not run.job_text:
        return section("job", "Job file", tag("p", "The run has not stored its job file yet."))
    return section(
        "job",
        "Job file",
        tag("pre", tag("code", run.job_text), tabindex="0", role="region", aria_label="The job file, with its defaults"),
    )


def environment(run: Gathered) -> Section | None:
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


def digests(run: Gathered) -> Section | None:
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
            tag("code", commit.digest[:16], title=commit.digest),
            commit.state,
            size(commit.size_bytes),
            at(commit.time_s),
        )
        for commit in reversed(commits)
    )
    head = ("Step", "Digest", "State", "Size", "Committed")
    return section("commits", "Commits", final, table("The newest first", head=head, rows=rows))


def published(places: Sequence[str]) -> Html | None:
    if not places:
        return None
    return tag("div", tag("p", "Published to:"), tag("ul", *(tag("li", place, class_="place") for place in places)))

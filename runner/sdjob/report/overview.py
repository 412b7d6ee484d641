"""The top of the page: how the run stands, and its figures. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from sdjob.ledger.read import Record
from sdjob.ledger.seconds import Account
from sdjob.report.gather import Gathered
from sdjob.report.html import Html, joined, tag
from sdjob.report.series import Chart, number
from sdjob.report.state import Standing
from sdjob.report.words import at, figure, lasted, share

PACE_STEPS = 200  # the last ones, of which the median is shown


@dataclass(frozen=True)
class Price:
    usd_per_hour: float
    source: str
    """Where that figure is from, in a few words."""


def header(run: Gathered, *, standing: Standing, sums: Account) -> Html:
    badge = tag("span", standing.state, class_=f"badge s-{standing.state}")
    return tag(
        "header",
        tag("p", "sdjob run", class_="kicker"),
        tag("h1", run.name, " ", badge),
        tag("p", standing.sentence, class_="sentence"),
        progress_bar(standing),
        tag("p", tag("span", run.place, class_="place"), f" · {span_of(sums)}", class_="fine"),
    )


def progress_bar(standing: Standing) -> Html | None:
    if standing.progress is None:
        return None
    label = f"step {standing.step:,} of {standing.total_steps:,}"
    return tag("progress", label, value=f"{standing.progress:.4f}", max="1", aria_label=f"Progress: {label}")


def span_of(sums: Account) -> str:
    if not sums.attempts:
        return ""
    return f"{at(sums.attempts[0].began_s)} to {at(max(attempt.ended_s for attempt in sums.attempts))}"


def notes(troubles: list[str]) -> Html | None:
    if not troubles:
        return None
    return tag("aside", tag("h2", "Take care"), tag("ul", *(tag("li", trouble) for trouble in troubles)), class_="care")


def tiles(run: Gathered, *, standing: Standing, sums: Account, charts: list[Chart], price: Price | None) -> Html:
    figures = [
        *of_time(sums),
        *of_money(sums, price=price),
        *of_training(run, charts=charts),
        ("Committed", f"step {standing.committed_step:,}" if standing.committed_step else "nothing", commit_age(run)),
    ]
    items = (tag("div", tag("dt", name), tag("dd", value, tag("small", note) if note else None)) for name, value, note in figures)
    return tag("dl", *items, class_="tiles")


Figure = tuple[str, str, str]


def of_time(sums: Account) -> Iterator[Figure]:
    if sums.goodput is not None:
        yield "Goodput", f"{100 * sums.goodput:.1f} %", "of the paid time became steps that stand"
    count = len(sums.attempts)
    yield "Paid time", lasted(sums.paid_s), f"{sums.paid_s / 3600:.3f} h in {count} attempt{'' if count == 1 else 's'}"
    lost_s = sums.seconds()["lost"]
    if lost_s >= 0.05:
        yield "Lost work", lasted(lost_s), f"{share(lost_s, sums.paid_s)} of the paid time"


def of_money(sums: Account, *, price: Price | None) -> Iterator[Figure]:
    if price is None:
        return
    paid = price.usd_per_hour * sums.paid_s / 3600
    stands = paid * (sums.goodput or 0.0)
    yield (
        "Price",
        f"${paid:,.2f}",
        f"${stands:,.2f} of it for steps that stand, at ${price.usd_per_hour:g} an hour ({price.source})",
    )


def of_training(run: Gathered, *, charts: list[Chart]) -> Iterator[Figure]:
    for chart in charts:
        if chart.key == "loss" and chart.smooth:
            yield "Loss", figure(chart.smooth[-1].values[-1]), "its mean over the last steps"
        if chart.key == "loss" and chart.extra:
            yield "Held-out loss", figure(chart.extra[-1].values[-1]), f"at step {chart.extra[-1].steps[-1]:,}"
        if chart.key == "device_memory_mib" and chart.segments:
            most = max(max(segment.values) for segment in chart.segments)
            yield "Device memory", f"{most / 1024:.2f} GiB", "the most in use, on the first device"
    rates = last_values(run.ledgers[-1].metrics, "images_per_s") if run.ledgers else []
    if rates:
        yield "Throughput", f"{figure(median(rates))} images/s", "the median of the last steps"


def last_values(metrics: list[Record], name: str) -> list[float]:
    return [value for record in metrics[-PACE_STEPS:] if (value := number(record, name)) is not None]


def commit_age(run: Gathered) -> str:
    if not run.history.live:
        return ""
    ago_s = run.read_s - run.history.live[0].time_s
    return f"{lasted(max(0.0, ago_s))} before this page"


@dataclass(frozen=True)
class Section:
    key: str
    title: str
    children: Html

    def html(self) -> Html:
        """Its heading is where the table of contents points."""
        head = tag("h2", self.title, id=f"{self.key}-title")
        return tag("section", head, self.children, id=self.key, aria_labelledby=f"{self.key}-title")


def section(key: str, title: str, *children: Html | None) -> Section:
    return Section(key, title, joined(children))


def contents(sections: Sequence[Section]) -> Html:
    links = (tag("li", tag("a", section.title, href=f"#{section.key}")) for section in sections)
    return tag("nav", tag("ul", *links), aria_label="On this page")

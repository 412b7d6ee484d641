"""Curves over steps, small enough for a page: of each bin of steps the least and the greatest value are kept, so that no spike
is lost. Pure."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sdjob.ledger.read import Record
from sdjob.ledger.seconds import Account, AttemptAccount

BINS = 500  # about as many as a wide screen has pixels for, twice over with two values each
LARGEST_DRAWN = 1e300  # from the least to the greatest is a number too
SMOOTHING = 0.02  # of all steps: how far back the smooth curve remembers

Point = tuple[int, float]
Value = Callable[[Record], float | None]


@dataclass(frozen=True)
class Segment:
    """A piece of a curve that one attempt drew."""

    attempt: int
    is_lost: bool
    steps: list[int]
    values: list[float]


@dataclass(frozen=True, kw_only=True)
class Chart:
    key: str
    title: str
    unit: str = ""
    segments: list[Segment]
    smooth: list[Segment] = field(default_factory=list[Segment])
    extra: list[Segment] = field(default_factory=list[Segment])
    """Another curve of the same unit: the loss of pictures that are held out."""

    not_finite: list[int] = field(default_factory=list[int])
    """Steps whose value was no number."""

    def fields(self) -> dict[str, Any]:
        def plain(segments: list[Segment]) -> list[dict[str, Any]]:
            return [
                {"a": s.attempt, "lost": s.is_lost, "x": s.steps, "y": [float(f"{v:.5g}") for v in s.values]} for s in segments
            ]

        return {
            "key": self.key, "title": self.title, "unit": self.unit, "segments": plain(self.segments),
            "smooth": plain(self.smooth), "extra": plain(self.extra), "notFinite": self.not_finite,
        }  # fmt: skip


def charts_of(metrics: dict[int, list[Record]], *, sums: Account) -> list[Chart]:
    """Those for which there is anything to draw. metrics: by attempt."""
    loss = chart("loss", "Loss", metrics, sums=sums, smoothed=True, extra="held_out_loss")
    charts = [
        loss,
        chart("learning_rate", "Learning rate", metrics, sums=sums),
        chart("images_per_s", "Throughput", metrics, sums=sums, unit="images/s"),
        chart("grad_norm", "Gradient norm", metrics, sums=sums),
        chart("device_memory_mib", "Device memory", metrics, sums=sums, unit="MiB"),
    ]
    return [chart for chart in charts if chart.segments or chart.not_finite]


def chart(
    key: str,
    title: str,
    metrics: dict[int, list[Record]],
    *,
    sums: Account,
    unit: str = "",
    smoothed: bool = False,
    extra: str = "",
) -> Chart:
    bin_steps = max(1, -(-max((attempt.reached_step for attempt in sums.attempts), default=0) // BINS))
    segments = list(segments_of(metrics, sums=sums, value=lambda record: number(record, key), bin_steps=bin_steps))
    return Chart(
        key=key,
        title=title,
        unit=unit,
        segments=segments,
        smooth=smoothed_over(metrics, sums=sums, key=key, bin_steps=bin_steps) if smoothed else [],
        extra=list(segments_of(metrics, sums=sums, value=lambda record: number(record, extra), bin_steps=1)) if extra else [],
        not_finite=sorted({record["step"] for records in metrics.values() for record in records if was_not_finite(record, key)})[
            :BINS
        ],
    )


def number(record: Record, key: str) -> float | None:
    """Unlike a time or a step it may be of any size: a learning rate of 1e30 is what went wrong."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    return float(max(-LARGEST_DRAWN, min(LARGEST_DRAWN, value)))


def was_not_finite(record: Record, key: str) -> bool:
    names = record.get("not_finite")
    return isinstance(names, dict) and key in names


def segments_of(metrics: dict[int, list[Record]], *, sums: Account, value: Value, bin_steps: int) -> Iterator[Segment]:
    for attempt in sums.attempts:
        for is_lost, records in split(metrics.get(attempt.attempt, []), attempt=attempt):
            points = [(record["step"], found) for record in records if (found := value(record)) is not None]
            if points:
                kept = list(thinned(points, bin_steps=bin_steps))
                yield Segment(attempt.attempt, is_lost, [step for step, _ in kept], [found for _, found in kept])


def split(records: Sequence[Record], *, attempt: AttemptAccount) -> Iterator[tuple[bool, list[Record]]]:
    """What stands, and what was lost; the latter begins where the former ends, so that the curve has no gap."""
    in_order = sorted(records, key=lambda record: record["step"])
    kept = [record for record in in_order if record["step"] <= attempt.kept_step]
    lost = [record for record in in_order if record["step"] > attempt.kept_step]
    yield False, kept
    if lost:
        yield True, [*kept[-1:], *lost]


def thinned(points: Sequence[Point], *, bin_steps: int) -> Iterator[Point]:
    """The first and the last, and of each bin the least and the greatest, in the order of their steps."""
    bins: dict[int, list[Point]] = {}
    for point in points:
        bins.setdefault(point[0] // bin_steps, []).append(point)
    for index, inside in enumerate(bins.values()):
        chosen = {min(inside, key=lambda point: point[1]), max(inside, key=lambda point: point[1])}
        chosen |= {points[0]} if index == 0 else set()
        chosen |= {points[-1]} if index == len(bins) - 1 else set()
        yield from sorted(chosen)


def smoothed_over(metrics: dict[int, list[Record]], *, sums: Account, key: str, bin_steps: int) -> list[Segment]:
    """An exponential mean over the steps that stand, each as its last attempt saw it."""
    standing = {
        record["step"]: found for attempt in sums.attempts for record, found in kept_values(metrics, attempt=attempt, key=key)
    }
    if not standing:
        return []
    keep = 1 - 1 / max(2.0, SMOOTHING * max(standing))
    smooth = list(exponential_mean(sorted(standing.items()), keep=keep))
    thin = smooth[::bin_steps] + ([smooth[-1]] if (len(smooth) - 1) % bin_steps else [])
    return [Segment(0, False, [step for step, _ in thin], [value for _, value in thin])]


def kept_values(metrics: dict[int, list[Record]], *, attempt: AttemptAccount, key: str) -> Iterator[tuple[Record, float]]:
    for record in metrics.get(attempt.attempt, []):
        found = number(record, key)
        if found is not None and record["step"] <= attempt.kept_step:
            yield record, found


def exponential_mean(points: Iterable[Point], *, keep: float) -> Iterator[Point]:
    """Without a bias towards zero at the beginning, as Adam's moments are corrected (arXiv 1412.6980, section 3)."""
    total = weight = 0.0
    for step, value in points:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        yield step, total / weight


def evenly(steps: Sequence[int], *, most: int) -> list[int]:
    """So many of them at most, the first and the last among them, the others evenly between."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]

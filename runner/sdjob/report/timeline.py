"""Bars of what each second went to, as SVG. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from sdjob.ledger.seconds import Account, AttemptAccount, Bucket, Span, merged
from sdjob.report.html import Html, tag
from sdjob.report.words import lasted

COLUMNS = 600  # of a bar; what is narrower belongs to the column's greatest part, and the table beside it has it exactly

LABELS: Mapping[Bucket, str] = {
    "train": "Training", "start": "Starting", "stage": "Staging", "cache": "Encoding once", "compile": "Compiling",
    "restore": "Restoring", "validate": "Validating", "save": "Saving", "publish": "Publishing", "lost": "Lost work",
    "waiting": "Waiting",
}  # fmt: skip
MEANINGS: Mapping[Bucket, str] = {
    "train": "steps that stand",
    "start": "Python, the claim, loading the model, the slower first step",
    "stage": "model and pictures to scratch, and the scan",
    "cache": "the encoders' pass over all pictures",
    "compile": "programs compiled, fetched or kept",
    "restore": "the checkpoint, read and verified",
    "validate": "validation pictures and losses",
    "save": "standstills for copies, and the wait for the last commit",
    "publish": "from the last commit to the end",
    "lost": "steps that had to be, or must be, trained again",
    "waiting": "between attempts, and for other machines",
}


def run_bar(sums: Account) -> Html:
    """The whole run on one axis of time, the waits between its attempts included."""
    spans = sorted([*sums.waits, *(span for attempt in sums.attempts for span in attempt.spans)], key=lambda span: span.begin_s)
    begin_s, end_s = min(span.begin_s for span in spans), max(span.end_s for span in spans)
    return bar(spans, begin_s=begin_s, end_s=end_s, label="The whole run, from its first second to its last")


def attempt_bar(attempt: AttemptAccount, *, longest_s: float) -> Html:
    """As long as the attempt, beside the longest one."""
    label = f"Attempt {attempt.attempt}: " + ", ".join(parts(attempt.seconds()))
    return bar(attempt.spans, begin_s=attempt.began_s, end_s=attempt.began_s + longest_s, label=label)


def parts(seconds: Mapping[Bucket, float]) -> Iterator[str]:
    for bucket, label in LABELS.items():
        if seconds[bucket] >= 0.05:
            yield f"{label.lower()} {lasted(seconds[bucket])}"


def bar(spans: Sequence[Span], *, begin_s: float, end_s: float, label: str) -> Html:
    column_s = max(end_s - begin_s, 1e-9) / COLUMNS
    rects = (
        tag(
            "rect",
            class_=f"b-{span.bucket}",
            x=f"{(span.begin_s - begin_s) / column_s:.2f}",
            y="0",
            width=f"{max(span.seconds / column_s, 0.5):.2f}",
            height="10",
        )
        for span in merged(coarse(spans, begin_s=begin_s, column_s=column_s))
    )
    return tag(
        "svg",
        *rects,
        class_="bar",
        role="img",
        aria_label=label,
        data_seconds=f"{column_s * COLUMNS:.3f}",
        view_box=f"0 0 {COLUMNS} 10",
        preserveAspectRatio="none",
    )


def coarse(spans: Sequence[Span], *, begin_s: float, column_s: float) -> Iterator[Span]:
    """Spans of a column or more as they are; runs of shorter ones by columns, each the bucket that has most of it."""
    crowd: list[Span] = []
    for span in spans:
        if span.seconds >= column_s:
            yield from by_columns(crowd, begin_s=begin_s, column_s=column_s)
            crowd = []
            yield span
        else:
            crowd.append(span)
    yield from by_columns(crowd, begin_s=begin_s, column_s=column_s)


def by_columns(crowd: Sequence[Span], *, begin_s: float, column_s: float) -> Iterator[Span]:
    columns: dict[int, list[Span]] = {}
    for span in crowd:
        columns.setdefault(int((span.begin_s - begin_s) // column_s), []).append(span)
    for inside in columns.values():
        seconds: dict[Bucket, float] = {}
        for span in inside:
            seconds[span.bucket] = seconds.get(span.bucket, 0.0) + span.seconds
        yield Span(max(seconds, key=lambda bucket: seconds[bucket]), inside[0].begin_s, inside[-1].end_s)

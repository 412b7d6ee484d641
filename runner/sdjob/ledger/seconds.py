"""Where every second of a run went: each is in exactly one bucket, so that the buckets add up to the wall time. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from sdjob.ledger.moments import Moments, seconds_in, whole
from sdjob.ledger.read import AttemptLedger

Bucket = Literal["start", "stage", "cache", "compile", "restore", "train", "validate", "save", "publish", "lost", "waiting"]
BUCKETS: tuple[Bucket, ...] = get_args(Bucket)

# The phases that are no part of a plain start; every other one is.
PHASES: Mapping[str, Bucket] = {
    "stage": "stage", "pictures": "stage", "cache": "cache", "compile": "compile", "programs": "compile", "restore": "restore",
    "publish": "publish", "peers": "waiting",
}  # fmt: skip
VALIDATIONS = ("samples", "samples-failed", "held-out")
SAVES = ("commit", "save-failed", "save-skipped", "save-missed")

# Which of two that claim a second has it: what is inside of the other. A program is compiled within a validation, not around it.
BASE, PAUSE, PHASE, WITHIN = range(4)


@dataclass(frozen=True)
class Span:
    bucket: Bucket
    begin_s: float
    """Unix time, as is the end."""

    end_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


@dataclass(frozen=True, kw_only=True)
class AttemptAccount:
    attempt: int
    spans: tuple[Span, ...]
    """In order, without a gap: from the start of the process to the end, as far as that is known."""

    start_step: int
    """Done when it began."""

    reached_step: int
    kept_step: int
    """What stands of it: the steps after this one were lost, and trained again where the run went on. Of an attempt that is
    running it is the step that it has reached."""

    is_over: bool

    @property
    def began_s(self) -> float:
        return self.spans[0].begin_s

    @property
    def ended_s(self) -> float:
        return self.spans[-1].end_s

    @property
    def wall_s(self) -> float:
        return self.ended_s - self.began_s

    def seconds(self) -> dict[Bucket, float]:
        return added(self.spans)


@dataclass(frozen=True)
class Account:
    attempts: tuple[AttemptAccount, ...]
    waits: tuple[Span, ...]
    """Between two attempts."""

    def seconds(self) -> dict[Bucket, float]:
        return added([*self.waits, *(span for attempt in self.attempts for span in attempt.spans)])

    @property
    def paid_s(self) -> float:
        """Of all attempts. Between two of them no machine is paid."""
        return sum(attempt.wall_s for attempt in self.attempts)

    @property
    def goodput(self) -> float | None:
        """Which share of the paid time became steps that stand; None before any time was paid."""
        return self.seconds()["train"] / self.paid_s if self.paid_s else None


def account(ledgers: Sequence[AttemptLedger], *, ended_s: Mapping[int, float] | None = None) -> Account:
    """ended_s: of attempts that are known to be over, when they ended. The last words of one that is killed are up to a flush
    older than its end; where nobody outlived it to tell, the seconds between count as waiting for the next one."""
    known = [moments for ledger in ledgers if (moments := Moments(ledger)).began_s is not None and moments.is_training]
    told_s = {one.ledger.attempt: end_s for one, then in pairwise(known) if (end_s := one.ended_by(then)) is not None}
    ended_s = {**told_s, **(ended_s or {})}
    attempts: list[AttemptAccount] = []
    for position, moments in enumerate(known):
        attempts.append(account_of(moments, later=known[position + 1 :], ended_s=ended_s.get(moments.ledger.attempt)))
    return Account(tuple(attempts), tuple(waits_between(attempts)))


def account_of(moments: Moments, *, later: Sequence[Moments], ended_s: float | None) -> AttemptAccount:
    is_over = bool(later) or ended_s is not None or moments.end is not None
    start = moments.start_step or 0
    reached = max(start, moments.reached_step or 0)
    kept = min(reached, kept_step(moments, later=later)) if is_over else reached
    began_s, last_s = moments.began_s or 0.0, moments.last_word_s or 0.0
    until_s = max(last_s, ended_s or 0.0)
    by_and_large = base(moments, kept=kept, is_over=is_over, began_s=began_s, until_s=until_s)
    claims = [*by_and_large, *pauses(moments), *phases(moments)]
    spans = tuple(partition(claims, began_s=began_s, until_s=until_s))
    return AttemptAccount(
        attempt=moments.ledger.attempt, spans=spans, start_step=start, reached_step=reached, kept_step=kept, is_over=is_over
    )


def kept_step(moments: Moments, *, later: Sequence[Moments]) -> int:
    """Where the run went on from; a commit may have landed without a word of it, or have been found damaged."""
    went_on = [start for other in later if (start := other.start_step) is not None]
    return min(went_on) if went_on else max(moments.start_step or 0, moments.committed_step or 0)


def waits_between(attempts: Sequence[AttemptAccount]) -> Iterator[Span]:
    """None where an attempt began before the one before it had ended: two at a time are nobody's waiting."""
    for position, attempt in enumerate(attempts[1:], start=1):
        free_s = max(before.ended_s for before in attempts[:position])
        if free_s < attempt.began_s:
            yield Span("waiting", free_s, attempt.began_s)


# ---- who claims which seconds ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    bucket: Bucket
    begin_s: float
    end_s: float
    rank: int


def base(moments: Moments, *, kept: int, is_over: bool, began_s: float, until_s: float) -> Iterator[Claim]:
    """What an attempt does by and large, one after the other: it starts, trains, saves the last step, publishes."""
    marks: list[tuple[float, Bucket]] = [(began_s, "start")]
    stepped_s = moments.stepped_s()
    if stepped_s:
        trained_s = max(began_s, min(stepped_s.values()) - moments.pace_s())
        marks.append((trained_s, "train"))
        if is_over:
            marks.append((max((s for step, s in stepped_s.items() if step <= kept), default=trained_s), "lost"))
        marks.extend(leaving(moments, last_s=max(stepped_s.values())))
    marks.extend((published_s, "publish") for published_s in publishing(moments))
    ends = [begin_s for begin_s, _ in in_order(marks)][1:]
    for (begin_s, bucket), end_s in zip(in_order(marks), [*ends, until_s], strict=True):
        yield Claim(bucket, begin_s, end_s, BASE)


def in_order(marks: Iterable[tuple[float, Bucket]]) -> Iterator[tuple[float, Bucket]]:
    """What comes later in an attempt never begins before what comes sooner, whatever the clocks say."""
    reached_s = float("-inf")
    for begin_s, bucket in marks:
        reached_s = max(reached_s, begin_s)
        yield reached_s, bucket


def leaving(moments: Moments, *, last_s: float) -> Iterator[tuple[float, Bucket]]:
    """After the last step the attempt waits for its last save."""
    stopping_s, total = moments.stopping_s(), moments.total_steps
    if moments.exit_code == 0 or (total is not None and (moments.reached_step or 0) >= total):
        yield last_s, "save"
    elif stopping_s is not None and moments.end is not None:
        yield max(last_s, stopping_s), "save"


def publishing(moments: Moments) -> list[float]:
    """When the last commit stood, or the publishing began that needed no step any more."""
    total = moments.total_steps
    done_s = moments.committed_at_s(total) if total is not None else None
    begun_s = [event["time_s"] - seconds_in(event) for event in moments.of("phase") if event.get("name") == "publish"]
    return [min(found)] if (found := [s for s in (done_s, *begun_s) if s is not None]) else []


def pauses(moments: Moments) -> Iterator[Claim]:
    """Between two steps: pictures are drawn, then the state is copied."""
    stepped_s = moments.stepped_s()
    over_s: dict[int, float] = dict(stepped_s)
    for event in (event for kind in VALIDATIONS for event in moments.of(kind)):
        step = whole(event, "step")
        begin_s: float = event["time_s"] - seconds_in(event)
        if step is not None:
            begin_s = over_s.get(step, begin_s)
            over_s[step] = begin_s + seconds_in(event)
        yield Claim("validate", begin_s, begin_s + seconds_in(event), PAUSE)
    for event in (event for kind in SAVES for event in moments.of(kind)):
        step = whole(event, "step")
        if step is not None and step in stepped_s:
            yield Claim("save", over_s[step], over_s[step] + seconds_in(event, "stall_s"), PAUSE)


def phases(moments: Moments) -> Iterator[Claim]:
    for event in moments.of("phase"):
        bucket = PHASES.get(str(event.get("name")))
        if bucket is not None:
            rank = WITHIN if bucket in ("compile", "cache") else PHASE
            yield Claim(bucket, event["time_s"] - seconds_in(event), event["time_s"], rank)


# ---- one owner for each ----------------------------------------------------------------------------------------------------


def partition(claims: Iterable[Claim], *, began_s: float, until_s: float) -> Iterator[Span]:
    """The time between the two, cut where the owner changes; the claim of the highest rank owns, then the later bucket."""
    changes: list[tuple[float, int, tuple[int, int]]] = []
    for claim in claims:
        begin_s, end_s = max(began_s, claim.begin_s), min(until_s, claim.end_s)
        if begin_s < end_s:
            key = (claim.rank, BUCKETS.index(claim.bucket))
            changes += [(begin_s, 1, key), (end_s, -1, key)]
    changes.sort(key=lambda change: change[0])
    if not changes:
        yield Span("start", began_s, until_s)
        return
    yield from merged(owned(changes))


def owned(changes: Sequence[tuple[float, int, tuple[int, int]]]) -> Iterator[Span]:
    held: dict[tuple[int, int], int] = {}
    for (at_s, change, key), (next_s, *_) in pairwise(changes):
        held[key] = held.get(key, 0) + change
        if not held[key]:
            del held[key]
        if at_s < next_s:
            yield Span(BUCKETS[max(held)[1]], at_s, next_s)


def merged(spans: Iterable[Span]) -> Iterator[Span]:
    last: Span | None = None
    for span in spans:
        if last is not None and last.bucket == span.bucket:
            last = Span(last.bucket, last.begin_s, span.end_s)
        else:
            if last is not None:
                yield last
            last = span
    if last is not None:
        yield last


def added(spans: Iterable[Span]) -> dict[Bucket, float]:
    total: dict[Bucket, float] = dict.fromkeys(BUCKETS, 0.0)
    for span in spans:
        total[span.bucket] += span.seconds
    return total

"""A status as people read it. Pure."""

from datetime import UTC, datetime

from sdjob.cluster.activity import Activity
from sdjob.cluster.attempts import AttemptRow
from sdjob.cluster.status import Status
from sdjob.job.progress import Stand, live_line

INDENT = "  "


def lines(status: Status, *, now_s: float) -> list[str]:
    return block(status, activity=activity_lines(status.activity, now_s=now_s) if status.activity else [])


def live_lines(status: Status, *, now_s: float, columns: int) -> list[str]:
    """With a bar, for a terminal so wide."""
    activity = status.activity
    if activity is None or activity.step is None or not activity.total_steps:
        return lines(status, now_s=now_s)
    stand = Stand(
        step=activity.step,
        total_steps=activity.total_steps,
        loss=activity.loss,
        seconds_left=activity.seconds_left,
        images_per_s=activity.images_per_s,
        committed_step=activity.committed_step,
        commit_age_s=commit_age_s(activity, now_s=now_s),
    )
    return block(status, activity=[live_line(stand, columns=columns - len(INDENT))])


def block(status: Status, *, activity: list[str]) -> list[str]:
    told = [f"{status.name}: {status.state}", f"{INDENT}{status.why}"]
    told += [f"{INDENT}{line}" for line in activity]
    if status.exit_code:
        told.append(f"{INDENT}exit code {status.exit_code}")
    if status.next_step:
        told.append(f"{INDENT}next: {status.next_step}")
    told += [f"{INDENT}note: {note}" for note in status.notes]
    return told + attempt_lines(status.attempts)


def activity_lines(activity: Activity, *, now_s: float) -> list[str]:
    told: list[str] = []
    if activity.step is not None:
        parts = [f"step {activity.step}" + (f" of {activity.total_steps}" if activity.total_steps else "")]
        parts += [f"loss {activity.loss:.4f}"] if activity.loss is not None else []
        parts += [f"{activity.images_per_s:.1f} images/s"] if activity.images_per_s else []
        parts += [f"{duration(activity.seconds_left)} left"] if activity.seconds_left else []
        told.append(", ".join(parts))
    if activity.committed_step is not None:
        age_s = commit_age_s(activity, now_s=now_s)
        told.append(f"step {activity.committed_step} is committed" + (f", {duration(age_s)} ago" if age_s is not None else ""))
    return told


def commit_age_s(activity: Activity, *, now_s: float) -> float | None:
    return max(0.0, now_s - activity.committed_s) if activity.committed_s is not None else None


def attempt_lines(rows: list[AttemptRow]) -> list[str]:
    if not rows:
        return []
    cells = [("attempt", "started", "ran", "gained", "lost", "how it ended")]
    cells += [
        (
            str(row.number),
            clock_time(row.started_s),
            duration(row.last_s - row.started_s),
            f"{row.gained}",
            f"{row.lost}",
            row.cause,
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    table = ["  ".join([*(cell.rjust(width) for cell, width in zip(line, widths, strict=False)), line[5]]) for line in cells]
    return ["", *table]


def clock_time(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"

"""What a job may take, where the command line sets a limit: held against the upper end of what is expected."""

from collections.abc import Iterator

from sdjob.core.errors import UsageError
from sdjob.plan.outlook import Outlook


def require_within(found: Outlook, *, budget_usd: float | None, max_hours: float | None) -> None:
    """UsageError where a limit is passed, and where nobody can tell: a limit that is not looked at would be no limit."""
    problems = [*(over_budget(found, budget_usd) if budget_usd is not None else ())]
    problems += over_time(found, max_hours) if max_hours is not None else ()
    if problems:
        raise UsageError(" ".join(problems), where=found.job.name)


def over_budget(found: Outlook, budget_usd: float) -> Iterator[str]:
    if found.usd is None:
        yield f"--budget {budget_usd:g}: what it costs cannot be told, since {unknown_price(found)}."
    elif found.usd.high > budget_usd:
        yield f"--budget {budget_usd:g}: it may cost {found.usd.high:.2f} USD."


def over_time(found: Outlook, max_hours: float) -> Iterator[str]:
    if found.hours is None:
        yield f"--max-hours {max_hours:g}: how long it takes cannot be told, since {unknown_time(found)}."
    elif found.hours.high > max_hours:
        yield f"--max-hours {max_hours:g}: it may take {found.hours.high:.1f} hours."


def unknown_time(found: Outlook) -> str:
    """Why: the half of a sentence."""
    if found.step_s is not None:
        return "epochs are asked for, and the pictures have not been counted; set train.steps"
    if found.machine.kind == "cpu":
        return "nobody knows how fast these processors are"
    if found.machine.device_peak_flops is None:
        return f"no source tells the peak of {found.job.run.accelerator}"
    return "it computes in float32, whose peak is not known"


def unknown_price(found: Outlook) -> str:
    if found.price is not None or found.machine.kind == "cpu":
        return unknown_time(found)
    flavor = found.job.run.kubernetes.flavor if found.job.run.kubernetes else "any cloud"
    kind = "spot" if found.job.run.spot else "on demand"
    return f"no price of {found.job.run.accelerator} ({kind}) on {flavor} is in the table; --prices FILE adds one"

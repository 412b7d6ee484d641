"""What doctor tells: one line a finding. The exit code is that of the first line that failed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sdjob.core.errors import SdjobError
from sdjob.spec.problems import JobFileError, Problem
from sdjob.spec.secrecy import SECRETS

State = Literal["ok", "warning", "failed"]
WIDTHS = (8, 16)


@dataclass(frozen=True)
class Finding:
    state: State
    check: str
    """What was looked at: a field of the job, or a part of the machine."""

    what: str
    next_step: str = ""
    where: str = ""
    """The place, file or line, where it is not said by `check`."""

    exit_code: int = 0
    """Of the contract; 0 unless it failed."""

    def line(self) -> str:
        where = f"{self.where}: " if self.where else ""
        told = f"{where}{self.what} {self.next_step}".strip().replace("\n", " ")
        return f"{self.state.ljust(WIDTHS[0])} {self.check.ljust(WIDTHS[1])} {told}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def ok(check: str, what: str) -> Finding:
    return Finding("ok", check, what)


def warning(check: str, what: str, *, next_step: str = "") -> Finding:
    return Finding("warning", check, what, next_step)


def failed(check: str, error: SdjobError) -> Finding:
    return Finding("failed", check, error.what, error.next_step or "", _where(check, error), error.exit_code)


def not_fatal(check: str, error: SdjobError) -> Finding:
    """The same as a warning: something else decides whether it matters."""
    return Finding("warning", check, error.what, error.next_step or "", _where(check, error))


def of_problem(problem: Problem, *, error: JobFileError) -> Finding:
    """A mistake in the job file, as `validate` words it."""
    return Finding("failed", "job file", str(problem), exit_code=error.exit_code)


def asked(
    check: str, ask: Callable[[], Iterable[Finding]], *, otherwise: Callable[[str, SdjobError], Finding] = failed
) -> Iterator[Finding]:
    """What a question finds; what it raises is a finding too, so that the next question is asked all the same."""
    try:
        yield from ask()
    except JobFileError as error:
        yield from (of_problem(problem, error=error) for problem in error.problems)
    except SdjobError as error:
        yield otherwise(check, error)
    except Exception as error:
        yield failed(check, SdjobError(f"this is a fault of sdjob: {type(error).__name__}: {error}"))


def exit_code_of(findings: Sequence[Finding]) -> int:
    return next((finding.exit_code for finding in findings if finding.state == "failed"), 0)


def summary(findings: Sequence[Finding]) -> str:
    counts = {state: sum(finding.state == state for finding in findings) for state in ("failed", "warning", "ok")}
    told = [f"{counts['failed']} failed", f"{counts['warning']} warning{'' if counts['warning'] == 1 else 's'}"]
    return ", ".join([*told, f"{counts['ok']} ok"])


def without_secrets(text: str) -> str:
    """Whatever looks like a secret, though no variable of the environment has it as its value."""
    for pattern in SECRETS.values():
        text = pattern.sub("***", text)
    return text


def _where(check: str, error: SdjobError) -> str:
    return "" if error.where in {None, check} else str(error.where)

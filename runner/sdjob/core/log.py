"""One stream of events for people and programs: text on a terminal, one JSON line an event elsewhere. Goes to stderr."""

import json
import os
import re
import sys
import threading
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

from sdjob.core.clock import Clock, SystemClock

LogMode = Literal["json", "text"]

# Values of these variables never leave the process: HF_TOKEN, AWS_SECRET_ACCESS_KEY, WANDB_API_KEY, ...
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_KEY|ACCESS_KEY)", re.IGNORECASE)
USUAL_COLUMNS = 80  # of a terminal that does not tell
SHORTEST_SECRET = 8  # shorter values ("1", "true", "/run") would blank out ordinary words


def secret_values(environment: dict[str, str]) -> tuple[str, ...]:
    """The values to hide, also as JSON spells them; longest first, so that a secret within another is hidden as a whole."""
    values = {v for k, v in environment.items() if SECRET_NAME.search(k) and len(v) >= SHORTEST_SECRET}
    values |= {json.dumps(v)[1:-1] for v in values}
    return tuple(sorted(values, key=len, reverse=True))


def redacted(text: str, *, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def resolve_mode(choice: Literal["json", "text", "auto"], *, stream: TextIO) -> LogMode:
    if choice == "auto":
        return "text" if stream.isatty() else "json"
    return choice


def columns_of(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL_COLUMNS
    except OSError:  # io.UnsupportedOperation is one
        return USUAL_COLUMNS


@dataclass
class Log:
    """Writes events; `progress` redraws one line on a terminal and stays silent elsewhere."""

    mode: LogMode = "text"
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Clock = field(default_factory=SystemClock)
    secrets: tuple[str, ...] = field(default_factory=lambda: secret_values(dict(os.environ)))
    _bar_width: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)
    """Threads tell of saves while another draws the bar; and a signal's handler may write in the middle of a line."""

    def event(self, kind: str, message: str, **fields: Any) -> None:
        """One event: `kind` for programs, `message` for people, fields for both (people see them in the message)."""
        if self.mode == "json":
            self._write(
                json.dumps({"time": round(self.clock.unix_s(), 3), "event": kind, "message": message, **fields}, default=str)
            )
        else:
            self._write(message)

    def warning(self, kind: str, message: str, **fields: Any) -> None:
        if self.mode == "json":
            self.event(kind, message, level="warning", **fields)
        else:
            self._write(f"warning: {message}")

    @property
    def has_bar(self) -> bool:
        """Whether `progress` is seen by a person."""
        return self.mode == "text" and self.stream.isatty()

    @property
    def columns(self) -> int | None:
        """What fits into a line of the terminal, as wide as it is now, without wrapping; None where there is no bar."""
        return columns_of(self.stream) - 1 if self.has_bar else None

    def progress(self, line: str) -> None:
        columns = self.columns
        if columns is not None:
            shown = redacted(line, secrets=self.secrets)[:columns]
            with self._lock:
                self.stream.write("\r" + shown.ljust(min(self._bar_width, columns)))
                self.stream.flush()
                self._bar_width = len(shown)

    def _write(self, line: str) -> None:
        with self._lock:
            if self._bar_width:
                self.stream.write("\r" + " " * self._bar_width + "\r")
                self._bar_width = 0
            self.stream.write(redacted(line, secrets=self.secrets) + "\n")
            self.stream.flush()

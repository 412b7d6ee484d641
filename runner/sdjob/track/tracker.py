"""The seam to a tracker. Its methods belong to one thread, except `abort`, and may raise: then the tracker is dropped."""

from typing import Protocol

from sdjob.core.errors import SdjobError
from sdjob.track.row import Final, Row


class TrackerLostError(SdjobError):
    """A tracker that cannot go on. It ends nothing but itself: nobody above ever sees its exit code."""


class Tracker(Protocol):
    @property
    def name(self) -> str: ...

    def open(self) -> int:
        """The last step that it shows already. It is told every later one, in order, each once."""
        ...

    def add(self, row: Row) -> None: ...

    def idle(self) -> None:
        """Called about once a second while nothing else is: a chance to write what is due."""
        ...

    def committed(self) -> None:
        """All rows so far are of committed steps."""
        ...

    def close(self, final: Final | None) -> None:
        """Writes what is left. None: the run goes on in another attempt."""
        ...

    def abort(self) -> None:
        """From any thread: let go of everything, written or not."""
        ...

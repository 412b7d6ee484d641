"""A snapshot that several processes write together: it is whole when each has told of its part, and lost when one could not."""

from dataclasses import dataclass, field
from typing import Any

from sdjob.core.channel import Message


@dataclass
class Parts:
    num_writers: int
    _told: dict[int, list[Message]] = field(default_factory=dict[int, list[Message]])

    def told(self, fields: Message) -> Message | None:
        """What rank 0 tells of the step's snapshot, once the others have told of their parts; with a `why` where any of them
        failed. Only then does nobody write in its folder any more."""
        told = self._told.setdefault(fields["step"], [])
        told.append(fields)
        if len(told) < self.num_writers:
            return None
        del self._told[fields["step"]]
        of_all: dict[str, Any] = next(words for words in told if "folder" in words)
        failed = next((words for words in told if "why" in words), None)
        return of_all if failed is None else {**of_all, "why": failed["why"]}

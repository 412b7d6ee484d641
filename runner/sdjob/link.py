"""A trainer's end of the channel to its parent."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sdjob.core.channel import Channel, Message


def awaited_task(channel: Channel) -> Path | None:
    """The file of the task, once the parent has written it: it may still be fetching what this process shall train on. None where
    the parent is gone. What this process needs to find the others of its gang comes with it, and into the environment."""
    while (message := channel.receive_one()) is not None:
        if message["event"] == "task":
            os.environ.update(message["environment"])
            return Path(message["file"])
    return None


@dataclass
class Link:
    """The trainer's end of the channel to the parent. Without a parent there is nobody to save for."""

    channel: Channel
    on_parent_gone: Callable[[], None]
    save_every_seconds: float | None = None
    """What the parent has chosen meanwhile, in place of the plan's."""

    _stop: threading.Event = field(default_factory=threading.Event)
    _idle: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._idle.set()
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    def _listen(self) -> None:
        for message in self.channel:
            if message["event"] == "stop":
                self._stop.set()
            elif message["event"] == "save-over":
                self._idle.set()
            elif message["event"] == "interval":
                self.save_every_seconds = message["seconds"]
        self.on_parent_gone()

    @property
    def stop_wanted(self) -> bool:
        return self._stop.is_set()

    @property
    def saving(self) -> bool:
        return not self._idle.is_set()

    def hold_save(self) -> None:
        """From here until the parent says "save-over" one save is in flight."""
        self._idle.clear()

    def wait_for_save(self) -> None:
        self._idle.wait()

    def send(self, event: str, **fields: object) -> None:
        message: Message = {"event": event, **fields}
        self.channel.send(message)

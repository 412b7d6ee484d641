"""The end of the notice for who still waits then: for a store that says nothing, or for threads that do.

Nothing is lost by leaving: what is committed stands, what was on its way is invisible, and the trainers die with their parent.
"""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from sdjob.core.clock import Clock
from sdjob.core.log import Log
from sdjob.job.last_words import leave
from sdjob.job.stop import StopRequest

MERCY_S = 4.0  # after the notice, for the ledger's last line; a pod is killed a second later (spec/run.py)
LOOK_S, WORDS_S = 0.2, 1.0


def left_when_overdue(stop: StopRequest, *, clock: Clock, environment: Mapping[str, str], log: Log) -> None:
    """Until this process ends, in whatever way: its last thread may be the one that waits."""
    told = {"clock": clock, "environment": environment, "log": log}
    threading.Thread(target=watch, args=(stop,), kwargs=told, name="overdue", daemon=True).start()


def watch(
    stop: StopRequest,
    *,
    clock: Clock,
    environment: Mapping[str, str],
    log: Log,
    end: Callable[[int], None] = os._exit,
) -> None:
    while stop.seconds_left() > -MERCY_S:
        clock.sleep(LOOK_S)
    error = stop.ending("the notice ended while something was still waited for")

    def tell() -> None:
        leave(str(error), environment=environment, log=log)
        with suppress(OSError):  # whoever reads this may be gone
            log.event("error", str(error), exit_code=error.exit_code)

    telling = threading.Thread(target=tell, name="overdue-words", daemon=True)
    telling.start()
    telling.join(WORDS_S)  # or may stand still
    end(error.exit_code)

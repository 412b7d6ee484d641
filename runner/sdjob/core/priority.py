"""Work beside the training, on the processors that it leaves idle."""

import os
import sys
import threading

LOWEST = 19  # https://man7.org/linux/man-pages/man7/sched.7.html, "The nice value": 15 parts where a niceness of 0 has 1024


def give_way() -> None:
    """From here on this thread, and those that it starts, wait for the training wherever both want a processor.

    On Linux a thread has a niceness of its own (https://man7.org/linux/man-pages/man2/setpriority.2.html, "C library/kernel
    differences"); elsewhere it is the process's, and stays. It cannot be taken back without privileges.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)

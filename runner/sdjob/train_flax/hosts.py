"""Several hosts that train as one: how a process joins them, leaves them, and sees that one is gone.

Of the launcher it takes torchrun's variables: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import jax

from sdjob.spec.task import Device, TrainTask

# The others wait for the first, which may be drawing pictures or saving the last step.
LONGEST_WAIT_S = 2 * 60 * 60
# What the collectives (gloo on a CPU) and jax's coordination service say when the other side does not answer.
GONE = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|Socket closed|Read timeout|Gloo context initialization|heartbeat|unhealthy",
    re.IGNORECASE,
)


def join(device: Device, *, environment: Mapping[str, str] = os.environ) -> None:
    """Before jax looks for its devices. Alone there is nothing to join; on a TPU slice jax finds the other machines itself."""
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        return
    if device == "tpu":
        jax.distributed.initialize(shutdown_timeout_seconds=LONGEST_WAIT_S)
        return
    if device == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}",
        num_processes=size,
        process_id=int(environment["RANK"]),
        cluster_detection_method="deactivate",
        shutdown_timeout_seconds=LONGEST_WAIT_S,
    )


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Of the process whose parent owns the run. On a slice jax may number the machines in another order."""
    return environment.get("RANK", "0") == "0"


def compiled_folder(task: TrainTask) -> Path | None:
    """None for several processes on CPUs: jax names a program there after the process, and lets the first alone write.
    So that one would compile nothing, and the others not yet be there when it calls them: gloo waits for 30 s."""
    return None if task.device == "cpu" and jax.process_count() > 1 else task.compiled


def leave() -> None:
    """When all have come to the end."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def leave_at_once(exit_code: int) -> int:
    """After a failure: alone the exit code is handed on; among others nobody waits for them, who may wait for this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return exit_code
    sys.stderr.flush()
    os._exit(exit_code)


def is_gone(error: Exception) -> bool:
    """Whether a failure is only that of a host that did not answer."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and isinstance(error, jax.errors.JaxRuntimeError) and GONE.search(str(error)) is not None

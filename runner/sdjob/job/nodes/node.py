"""Which machine of a gang this is, as whoever started it says in the environment. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sdjob.core.errors import UsageError
from sdjob.spec.hardware import Accelerator, num_machines
from sdjob.spec.job import JobSpec

ADDRESS, NODES, NODE = "SDJOB_GANG_ADDRESS", "SDJOB_GANG_NODES", "SDJOB_GANG_NODE"
WAIT, GRACE = "SDJOB_GANG_WAIT_S", "SDJOB_GANG_GRACE_S"
LOOPBACK = "127.0.0.1"
# A cluster that has to start machines brings them minutes apart; torchrun waits as long.
WAIT_S = 600.0
# Whoever lost a peer leaves this much later, so that the culprit's own exit code is the first that a cluster sees.
GRACE_S = 30.0
LARGEST_PORT = 65535


@dataclass(frozen=True)
class Node:
    """One machine of a gang; the first of them has number 0 and owns the run."""

    number: int = 0
    count: int = 1
    host: str = LOOPBACK
    """Of node 0, as the others reach it."""

    port: int = 0
    wait_s: float = WAIT_S
    """How long the nodes wait for each other at the start."""

    grace_s: float = GRACE_S

    @property
    def is_alone(self) -> bool:
        return self.count == 1

    @property
    def is_first(self) -> bool:
        return self.number == 0

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


ALONE = Node()


def node_here(job: JobSpec, *, accelerator: Accelerator, environment: Mapping[str, str]) -> Node:
    """UsageError where the job needs several machines and the environment does not say which of them this is."""
    count = num_machines(accelerator, nodes=job.run.nodes, slices=job.run.slices)
    if count == 1 and NODES not in environment:
        return ALONE
    field = "run.accelerator" if accelerator.kind == "tpu" else "run.nodes"
    missing = [name for name in (ADDRESS, NODES, NODE) if not environment.get(name)]
    if missing:
        raise UsageError(
            f"the job needs {count} machines, and which of them this is does not stand in {', '.join(missing)}.",
            where=field,
            next_step=f"Set on each of them {ADDRESS}=HOST:PORT (of the first, as all reach it), {NODES}={count} and "
            f"{NODE}=0 to {count - 1}; `sdjob render` does so in a cluster.",
        )
    if whole(NODES, environment=environment) != count:
        raise UsageError(
            f"is {environment[NODES]}, and the job needs {count} machine{'s' * (count > 1)}.",
            where=NODES,
            next_step=f"Set it to {count}, or {field} to what there is.",
        )
    if count == 1:
        return ALONE
    number = whole(NODE, environment=environment)
    if number >= count:
        raise UsageError(f"is {number}; the {count} nodes are numbered 0 to {count - 1}.", where=NODE)
    host, port = host_and_port(environment[ADDRESS])
    wait_s, grace_s = (
        seconds(name, default=default, environment=environment) for name, default in ((WAIT, WAIT_S), (GRACE, GRACE_S))
    )
    return Node(number, count, host, port, wait_s, grace_s)


def whole(name: str, *, environment: Mapping[str, str]) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise UsageError(f"must be a whole number, not '{text}'.", where=name)
    return int(text)


def seconds(name: str, *, default: float, environment: Mapping[str, str]) -> float:
    text = environment.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"must be a number of seconds, not '{text}'.", where=name)
    return value


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= LARGEST_PORT:
        raise UsageError(f"must be HOST:PORT of the first node, not '{address}'.", where=ADDRESS)
    return host, int(port)

"""`sdjob run` on each node of a gang: node 0 leads, the others follow, and each leaves with a word to the others."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sdjob.core.errors import PeerLostError, SdjobError
from sdjob.core.log import redacted
from sdjob.job.nodes.enlistment import Enlistment
from sdjob.job.nodes.follow import Follower
from sdjob.job.nodes.greeting import job_key
from sdjob.job.nodes.node import Node
from sdjob.job.nodes.peers import Peers
from sdjob.job.nodes.rollcall import RollCall
from sdjob.job.prepare import Run, Staged
from sdjob.job.scratch import full_disk_errors

Gather = Callable[[], Peers]
"""Called by an attempt before its claim: waits until all nodes are there."""


def lead(run: Run, node: Node, *, attempt: Callable[[Gather], None]) -> None:
    with roll_call(run, node) as call, ExitStack() as to_the_end:

        def gather() -> Peers:
            peers = Peers(node, call.gather(check_stop=run.stop.check), run.stop, run.clock)
            to_the_end.enter_context(farewell(run, peers))
            peers.start()
            return peers

        attempt(gather)


def follow(run: Run, node: Node, *, staged: Staged | None, scratch: Path) -> None:
    wire, word = Enlistment(node, job_key(run.job), run.clock, run.log, run.stop.check).join()
    peers = Peers(node, {0: wire}, run.stop, run.clock)
    with farewell(run, peers), full_disk_errors(scratch):
        peers.take_first(word)
        peers.start()
        Follower(run, peers, scratch, staged).execute()


@contextmanager
def roll_call(run: Run, node: Node) -> Generator[RollCall]:
    """The open door. Who stands in it when the attempt ends is told how."""
    call = RollCall(node, job_key(run.job), run.clock, run.log)
    call.open()
    code, what = 0, ""
    try:
        yield call
    except BaseException as error:
        code, what = told(error, run=run)
        raise
    finally:
        if call.is_open:
            call.dismiss(exit_code=code, what=what)


@contextmanager
def farewell(run: Run, peers: Peers) -> Generator[None]:
    """Tells the others how this node ended. One that lost a peer leaves some time after it."""
    code, what = 0, ""
    try:
        yield
    except BaseException as error:
        code, what = told(error, run=run)
        raise
    finally:
        peers.end(exit_code=code, what=what)
        if code == PeerLostError.exit_code:
            peers.wait_for_the_culprit()
        peers.leave()


def told(error: BaseException, *, run: Run) -> tuple[int, str]:
    """The exit code and the words for other machines, which get no secret."""
    known = isinstance(error, SdjobError)
    what = str(error) if known else f"{type(error).__name__}: {error}"
    return error.exit_code if known else SdjobError.exit_code, redacted(what, secrets=run.log.secrets)

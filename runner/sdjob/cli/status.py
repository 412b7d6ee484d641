"""`sdjob status NAME`: one state, its cause, one next step, and the table of attempts."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sdjob.cli.access import add_server_arguments, connected
from sdjob.cli.named import Named, named
from sdjob.cli.screen import Screen
from sdjob.core.clock import Clock, SystemClock
from sdjob.core.errors import MissingError
from sdjob.core.log import Log, redacted

if TYPE_CHECKING:
    from sdjob.cluster.server import Server
    from sdjob.cluster.status import Status

WATCH_S = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("job", metavar="NAME", help="the job's name, or its job file")
    add_server_arguments(parser)
    parser.add_argument(
        "--watch", action="store_true", help="until the job has ended: a live view on a terminal, elsewhere every change"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: one object, or with --watch one line a change")


def execute(args: Namespace, *, log: Log) -> int:
    wanted = named(args.job)
    server = connected(args, namespace=wanted.namespace)
    if args.watch:
        watch(wanted, server=server, as_json=args.json, clock=SystemClock(), log=log)
    else:
        tell(status_of(wanted, server=server), as_json=args.json, indent=2, now_s=SystemClock().unix_s(), log=log)
    return 0


def status_of(wanted: Named, *, server: "Server") -> "Status":
    from sdjob.cluster.look import look
    from sdjob.cluster.status import judge

    facts = look(wanted.name, server=server, job=wanted.job)
    if facts.workload is None and not facts.ledgers:
        raise MissingError(
            f"there is no such job in namespace {server.namespace}.",
            where=wanted.name,
            next_step="See `sdjob list`; with its job file instead of its name, what its ledger says is told all the same.",
        )
    return judge(facts)


def watch(wanted: Named, *, server: "Server", as_json: bool, clock: Clock, log: Log) -> None:
    """An API server that does not answer is no news of the job: it is asked again."""
    from sdjob.cluster.refusals import UnreachableError
    from sdjob.cluster.status import FINISHED

    show, warn = showing(as_json=as_json, clock=clock, log=log)
    while True:
        try:
            status = status_of(wanted, server=server)
        except UnreachableError as error:
            warn(str(error))
            clock.sleep(WATCH_S)
            continue
        show(status)
        if status.state in FINISHED:
            return
        clock.sleep(WATCH_S)


def showing(*, as_json: bool, clock: Clock, log: Log) -> tuple[Callable[["Status"], None], Callable[[str], None]]:
    """How a status is shown, and a trouble on the way to one: over the last one where a person looks, else as lines."""
    if sys.stdout.isatty() and not as_json:
        view = View(Screen(sys.stdout), clock, log)
        return view.show, view.warn
    changes = Changes(as_json, clock, log)
    return changes.show, lambda words: log.warning("unreachable", words)


@dataclass
class View:
    """One view of a job, drawn again at each look."""

    screen: Screen
    clock: Clock
    log: Log

    def show(self, status: "Status") -> None:
        from sdjob.cli.status_text import live_lines

        told = live_lines(status, now_s=self.clock.unix_s(), columns=self.screen.columns)
        self.screen.draw([redacted(line, secrets=self.log.secrets) for line in told])

    def warn(self, words: str) -> None:
        self.screen.leave()
        self.log.warning("unreachable", words)


@dataclass
class Changes:
    """What is new, as lines that stay."""

    as_json: bool
    clock: Clock
    log: Log
    _before: Any = None

    def show(self, status: "Status") -> None:
        now = (status.state, status.why, status.activity and status.activity.step)
        if now != self._before:
            tell(status, as_json=self.as_json, indent=None, now_s=self.clock.unix_s(), log=self.log)
        self._before = now


def tell(status: "Status", *, as_json: bool, indent: int | None, now_s: float, log: Log) -> None:
    if as_json:
        print(redacted(json.dumps(asdict(status), indent=indent), secrets=log.secrets), flush=True)
        return
    from sdjob.cli.status_text import lines

    print(redacted("\n".join(lines(status, now_s=now_s)), secrets=log.secrets), flush=True)

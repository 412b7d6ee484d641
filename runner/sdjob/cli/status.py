"""`sdjob status NAME`: one state, its cause, one next step, and the table of attempts."""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sdjob.cli.access import add_server_arguments, connected
from sdjob.cli.named import Named, named
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
    parser.add_argument("--watch", action="store_true", help="tell every change until the job has ended")
    parser.add_argument("--json", action="store_true", help="print JSON: one object, or with --watch one line a change")


def execute(args: Namespace, *, log: Log) -> int:
    wanted = named(args.job)
    server = connected(args, namespace=wanted.namespace)
    if args.watch:
        watch(wanted, server=server, as_json=args.json, clock=SystemClock(), log=log)
    else:
        tell(status_of(wanted, server=server), as_json=args.json, indent=2, log=log)
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

    before: Any = None
    while True:
        try:
            status = status_of(wanted, server=server)
        except UnreachableError as error:
            log.warning("unreachable", str(error))
            clock.sleep(WATCH_S)
            continue
        now = (status.state, status.why, status.activity and status.activity.step)
        if now != before:
            tell(status, as_json=as_json, indent=None, log=log)
        if status.state in FINISHED:
            return
        before = now
        clock.sleep(WATCH_S)


def tell(status: "Status", *, as_json: bool, indent: int | None, log: Log) -> None:
    if as_json:
        print(redacted(json.dumps(asdict(status), indent=indent), secrets=log.secrets), flush=True)
        return
    from sdjob.cli.status_text import lines

    print(redacted("\n".join(lines(status)), secrets=log.secrets), flush=True)

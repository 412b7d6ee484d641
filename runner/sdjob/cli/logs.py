"""`sdjob logs NAME`: what the job says, over all its pods."""

from argparse import ArgumentParser, Namespace

from sdjob.cli.access import add_server_arguments, connected
from sdjob.cli.named import named
from sdjob.core.clock import SystemClock
from sdjob.core.log import Log, redacted


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("job", metavar="NAME", help="the job's name, or its job file")
    add_server_arguments(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended, from pod to pod")
    parser.add_argument("--tail", type=int, metavar="N", help="only the last N lines of what there is")
    parser.add_argument("--all", action="store_true", help="of every pod that is still there, oldest first")
    parser.add_argument("--rank", type=int, default=0, metavar="N", help="of a gang's N-th pod (default 0)")


def execute(args: Namespace, *, log: Log) -> int:
    wanted = named(args.job)
    server = connected(args, namespace=wanted.namespace)
    from sdjob.cluster.logs import LogReader

    reader = LogReader(
        wanted.name,
        server,
        SystemClock(),
        show=lambda line: print(redacted(line, secrets=log.secrets), flush=True),
        tell=lambda line: log.event("logs", line),
        rank=args.rank,
    )
    if args.follow:
        reader.follow(tail=args.tail)
    else:
        reader.print_all(tail=args.tail, every_attempt=args.all)
    return 0

"""`sdjob cancel NAME`: the job's pods are asked to stop, and its objects are taken away."""

from argparse import ArgumentParser, Namespace

from sdjob.cli.access import add_server_arguments, connected
from sdjob.cli.named import named
from sdjob.core.log import Log


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("job", metavar="NAME", help="the job's name, or its job file")
    add_server_arguments(parser)


def execute(args: Namespace, *, log: Log) -> int:
    wanted = named(args.job)
    server = connected(args, namespace=wanted.namespace)
    from sdjob.cluster.submit import cancel

    live = cancel(wanted.name, server=server)
    print(f"{live['kind'].lower()}/{wanted.name} is being taken away")
    log.event("next", "its pods save and commit within their grace; `sdjob submit` with the same file goes on from there")
    return 0

"""`sdjob list`: the jobs in the cluster."""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from sdjob.cli.access import add_server_arguments, connected
from sdjob.core.log import Log


def add_arguments(parser: ArgumentParser) -> None:
    add_server_arguments(parser)
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of every namespace")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")


def execute(args: Namespace, *, log: Log) -> int:
    server = connected(args)
    from sdjob.cluster.listing import listing

    found = listing(server, everywhere=args.all_namespaces)
    if args.json:
        print(json.dumps([asdict(line) for line in found], indent=2))
        return 0
    if not found:
        where = "any namespace" if args.all_namespaces else f"namespace {server.namespace}"
        log.event("list", f"there are no jobs of sdjob's in {where}")
        return 0
    cells = [("name", "namespace", "kind", "state", "created")]
    cells += [(line.name, line.namespace, line.kind, line.state, line.created) for line in found]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0

"""`sdjob submit FILE`: the job's objects in the cluster, once however often it is asked for."""

import json
import os
from argparse import ArgumentParser, Namespace

from sdjob.cli.access import add_server_arguments, connected
from sdjob.cli.render import add_job_arguments, overrides
from sdjob.core.clock import SystemClock
from sdjob.core.log import Log, redacted

WORDS = {"created": "created", "unchanged": "unchanged: the same job is there", "replaced": "replaced"}


def add_arguments(parser: ArgumentParser) -> None:
    add_job_arguments(parser)
    add_server_arguments(parser)
    parser.add_argument("--replace", action="store_true", help="stop a job of this name and start this one in its place")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a line")


def execute(args: Namespace, *, log: Log) -> int:
    from sdjob.cluster.render import rendered
    from sdjob.spec.load import load_job

    given = overrides(args) + ([f"run.kubernetes.namespace={args.namespace}"] if args.namespace else [])
    job = load_job(args.file, overrides=given, environment=os.environ)
    result = rendered(job)
    for caution in result.cautions:
        log.warning("caution", str(caution), field=caution.field)
    server = connected(args, namespace=result.workload["metadata"]["namespace"])
    from sdjob.cluster.listing import state_of
    from sdjob.cluster.submit import submit

    done = submit(result, server=server, replace=args.replace, clock=SystemClock())
    kind, state = result.workload["kind"], state_of(done.workload)
    if args.json:
        fields = {"name": job.name, "namespace": server.namespace, "kind": kind, "outcome": done.outcome, "state": state}
        print(redacted(json.dumps(fields), secrets=log.secrets))
        return 0
    print(f"{kind.lower()}/{job.name} {WORDS[done.outcome]}")
    if done.outcome == "unchanged" and state in {"done", "failed"}:
        log.event("next", f"it is {state}: --replace starts it again", state=state)
    else:
        log.event("next", f"`sdjob status {job.name} -n {server.namespace}` tells how it goes")
    return 0

"""`sdjob submit FILE`: the job's objects in the cluster, once however often it is asked for.

What the job will take is shown before, and at a terminal a person is asked; a script has nobody to ask, and has --budget.
"""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from sdjob.cli.access import add_server_arguments, connected
from sdjob.cli.plan import add_limit_arguments, as_text, outlook_of
from sdjob.cli.render import add_job_arguments, overrides
from sdjob.core.clock import SystemClock
from sdjob.core.errors import StoppedError
from sdjob.core.log import Log, redacted

if TYPE_CHECKING:
    from sdjob.spec.job import JobSpec

WORDS = {"created": "created", "unchanged": "unchanged: the same job is there", "replaced": "replaced"}


def add_arguments(parser: ArgumentParser) -> None:
    add_job_arguments(parser)
    add_server_arguments(parser)
    add_limit_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask, at a terminal either")
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
    show_plan(job, args=args, log=log)
    server = connected(args, namespace=result.workload["metadata"]["namespace"])
    from sdjob.cluster.listing import state_of
    from sdjob.cluster.submit import submit

    if not args.yes:
        require_consent()
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


def show_plan(job: "JobSpec", *, args: Namespace, log: Log) -> None:
    """UsageError where it passes a limit of the command line."""
    from sdjob.plan.limits import require_within
    from sdjob.plan.summary import told

    found = outlook_of(job, prices=args.prices)
    log.event("plan", as_text(found), usd=told(found.usd), hours=told(found.hours), fits=found.memory.fits)
    require_within(found, budget_usd=args.budget, max_hours=args.max_hours)


def require_consent() -> None:
    """StoppedError where a person at a terminal says anything but yes."""
    if not sys.stdin.isatty():
        return
    sys.stderr.write("Submit it? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise StoppedError("nothing was submitted.")

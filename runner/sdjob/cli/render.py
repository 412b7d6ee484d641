"""`sdjob render FILE`: Kubernetes manifests on stdout, what to beware of on stderr."""

import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from sdjob.core.log import Log, redacted


def add_arguments(parser: ArgumentParser) -> None:
    add_job_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of YAML documents")


def add_job_arguments(parser: ArgumentParser) -> None:
    """What `submit` takes too."""
    from sdjob.spec.flavor import Flavor

    parser.add_argument("file", type=Path, metavar="FILE", help="the job file")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field of the job file")
    flavors = get_args(Flavor)
    parser.add_argument("--flavor", choices=flavors, help="whose cluster it is; overrides run.kubernetes.flavor")


def execute(args: Namespace, *, log: Log) -> int:
    from sdjob.cluster.dump import as_yaml
    from sdjob.cluster.render import rendered
    from sdjob.spec.load import load_job

    job = load_job(args.file, overrides=overrides(args), environment=os.environ)
    result = rendered(job)
    for caution in result.cautions:
        log.warning("caution", str(caution), field=caution.field)
    text = json.dumps(result.manifests, indent=2) + "\n" if args.json else as_yaml(result.manifests)
    print(redacted(text, secrets=log.secrets), end="")
    return 0


def overrides(args: Namespace) -> list[str]:
    return [*args.set, *([f"run.kubernetes.flavor={args.flavor}"] if args.flavor else [])]

"""`sdjob schema`: the JSON Schema of the job file, for editors and CI."""

import json
from argparse import ArgumentParser, Namespace

from sdjob.core.log import Log


def add_arguments(parser: ArgumentParser) -> None:
    parser.epilog = "In an editor: `# yaml-language-server: $schema=job.schema.json` as the first line of the job file."


def execute(args: Namespace, *, log: Log) -> int:  # noqa: ARG001  every verb is called alike
    from sdjob.spec.schema import job_schema

    print(json.dumps(job_schema(), indent=2, ensure_ascii=False))
    return 0

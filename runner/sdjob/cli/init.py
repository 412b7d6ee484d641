"""`sdjob init PATH`: a commented job file to start from."""

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sdjob.cli.templates import TEMPLATES, job_file
from sdjob.core.errors import DeniedError, MissingError, UsageError
from sdjob.core.log import Log

LONGEST_NAME = 40


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="the file to write; it must not exist yet")
    parser.add_argument("--template", choices=tuple(TEMPLATES), default="lora", help="what the job trains (default: lora)")


def execute(args: Namespace, *, log: Log) -> int:  # noqa: ARG001  every verb is called alike
    path: Path = args.path
    write_new(path, text=job_file(args.template, name=job_name(path)))
    print(f"{path}: written; put your model and data into it, then run `sdjob validate {path}`")
    return 0


def job_name(path: Path) -> str:
    """A DNS label from the file's name."""
    label = re.sub(r"[^a-z0-9]+", "-", path.stem.lower())[:LONGEST_NAME].strip("-")
    return label or "job"


def write_new(path: Path, *, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError("exists already and is left as it is.", where=str(path), next_step="Choose another path.") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError("there is no such folder.", where=str(path.parent)) from error
    except PermissionError as error:
        raise DeniedError("this user may not write there.", where=str(path)) from error

"""`sdjob convert`: a command line of diffusers' training scripts becomes a job file on stdout."""

import argparse
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdjob.core.errors import UsageError
from sdjob.core.log import Log, redacted

if TYPE_CHECKING:
    from sdjob.convert.conversion import Circumstances, Converted

DESCRIPTION = """\
A command line of diffusers' train_text_to_image.py, train_text_to_image_lora.py or
train_text_to_image_flax.py becomes an equal job file on stdout. What has no equal is a
comment in it and a line on stderr. Nothing is executed, and nothing is asked of the network.

  sdjob convert -- accelerate launch train_text_to_image_lora.py --rank 8 ... > job.yaml
  sdjob convert < train.sh > job.yaml      a whole script, with the `export` lines it needs
  sdjob convert 'accelerate launch ...'    the same, as one quoted argument

Variables have the value that the script gives them, else the environment's. A name such as
owner/name is looked for on the Hub, unless a folder of that name is here.
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.add_argument(
        "--devices", type=int, metavar="N", help="devices of the whole run, where the command does not say (else 1)"
    )
    parser.add_argument("--pictures", type=int, metavar="N", help="pictures of the data set: makes steps of epochs")
    parser.add_argument("--flags", action="store_true", help="print a Markdown table of all flags and what becomes of them")
    # REMAINDER: the command's own flags are not ours, with or without `--` before it
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command line; absent or -: from stdin"
    )


def execute(args: Namespace, *, log: Log) -> int:
    from sdjob.convert.flag_table import markdown_table

    if args.flags:
        sys.stdout.write(markdown_table())
        return 0
    converted = convert(args.command, circumstances=circumstances_of(args))
    for remark in converted.remarks:
        tell(remark, log=log, as_json=args.log == "json")
    sys.stdout.write(converted.job_file)
    return 0


def circumstances_of(args: Namespace) -> "Circumstances":
    from sdjob.convert.conversion import Circumstances

    for name in ("devices", "pictures"):
        number: int | None = getattr(args, name)
        if number is not None and number < 1:
            raise UsageError(f"--{name} {number}: a whole number from 1 is needed.")
    return Circumstances(os.environ, exists_here, args.devices, args.pictures)


def convert(command: Sequence[str], *, circumstances: "Circumstances") -> "Converted":
    from sdjob.convert.conversion import convert_text, convert_words

    words = list(command[1:] if command[:1] == ["--"] else command)
    if words in ([], ["-"]):
        return convert_text(text_of_stdin(), circumstances=circumstances)
    return convert_words(words, circumstances=circumstances)


def text_of_stdin() -> str:
    if sys.stdin.isatty():
        raise UsageError("there is no command line to convert.", next_step="Put it behind `--`, or see `sdjob convert --help`.")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError("the text is not UTF-8.", where="stdin", next_step="Save it as UTF-8.") from error


def exists_here(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name too long for this system, or one that holds a NUL
        return False


def tell(remark: str, *, log: Log, as_json: bool) -> None:
    if as_json:
        log.warning("convert", remark)
    else:
        sys.stderr.write(redacted(f"sdjob: {remark}\n", secrets=log.secrets))

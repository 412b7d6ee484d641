"""`sdjob` without its patience: waits between two tries take no time, and a silent server is given up after half a second.

Packages that WITHOUT names (separated by commas) are not there. For tests of what is said in the end, not of how long it took.
"""

import os
import sys

from sdjob.cli.main import main
from sdjob.core.clock import SystemClock

SILENCE_S = 0.5


def hurry() -> None:
    SystemClock.sleep = lambda self, seconds: None  # pyright: ignore[reportAttributeAccessIssue]
    for package in filter(None, os.environ.pop("WITHOUT", "").split(",")):
        sys.modules[package] = None  # pyright: ignore[reportArgumentType]  # what the import system itself marks so is not found
    if sys.modules.get("boto3", main) is not None:
        from sdjob.store.s3 import S3Store

        assert S3Store.__init__.__kwdefaults__ is not None
        S3Store.__init__.__kwdefaults__["read_timeout_s"] = SILENCE_S


if __name__ == "__main__":
    hurry()
    sys.exit(main())

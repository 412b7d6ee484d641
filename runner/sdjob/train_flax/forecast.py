"""What a job's step will need on a TPU slice, from the TPU's own compiler, on a machine without a TPU.

`python -m sdjob.train_flax.forecast TASK.json [--memory]` prints a Forecast as one line of JSON. The compiler runs in a child
process. It settles where everything lies long before it is done: with `--memory` it is ended then, at a tenth of the time.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from sdjob.core.errors import SdjobError, error_for_exit_code

# libtpu looks for a TPU, a metadata server and neighbours, writes logs, and takes a lock that two compilations could not both
# have. It reads its environment when it is loaded; what it would look for is told to it.
QUIET: Mapping[str, str] = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
# XLA's name for it among what it dumps; its second line is "Total bytes: 12553880576 (11.69GiB)".
MEMORY_REPORT = "*.after_optimizations-memory-usage-report.txt"
TOTAL_BYTES = re.compile(r"^Total bytes: (\d+) ", re.MULTILINE)
LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Forecast:
    """Of one device and one optimizer step."""

    accelerator: str
    num_devices: int
    hbm_bytes: int
    """What the compiler gives a program on this chip: a little less than the chip has."""

    flops: float
    """In products and convolutions, recomputation included."""

    needed_bytes: int
    """All that is alive at once; of a program that does not fit the compiler tells it to three or four digits."""

    argument_bytes: int | None = None
    """This and what follows is known of a finished compilation alone."""

    output_bytes: int | None = None
    temporary_bytes: int | None = None
    code_bytes: int | None = None
    peak_bytes: int | None = None
    accessed_bytes: float | None = None
    """As the compiler counts: on-chip memory too, the body of a loop once, a kernel as it declares itself."""

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.hbm_bytes

    @property
    def verdict(self) -> str:
        needed, available = (f"{size / 2**30:.2f} GiB" for size in (self.needed_bytes, self.hbm_bytes))
        return f"{'fits' if self.fits else 'does not fit'}: needs {needed} of {available}"

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sdjob.train_flax.forecast")
    parser.add_argument("task", type=Path, help="the task file of a training job on a TPU")
    parser.add_argument("--memory", action="store_true", help="end the compilation once the memory is settled")
    asked = parser.parse_args(arguments)
    try:
        found = forecast([sys.executable, "-P", "-m", "sdjob.train_flax.tpu_compiler", str(asked.task)], memory=asked.memory)
    except SdjobError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(json.dumps({**asdict(found), "fits": found.fits, "verdict": found.verdict}))  # noqa: T201 - what the process is for
    return 0


def forecast(command: Sequence[str], *, memory: bool) -> Forecast:
    """Of the child process `command`: it prints what is known beforehand as JSON, then the whole Forecast.

    `memory` is enough: it gets `--dump FOLDER` and is ended as soon as the compiler has written there what it needs.
    """
    with TemporaryDirectory(prefix="sdjob-forecast-") as folder:
        told = [*command, "--dump", folder] if memory else command
        child = subprocess.Popen(told, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            needed_bytes = settled_bytes(child, Path(folder)) if memory else None
        finally:
            if memory:
                child.terminate()
            said, errors = child.communicate()
    if needed_bytes is not None:
        return Forecast(**json.loads(said.splitlines()[0]), needed_bytes=needed_bytes)
    if child.returncode < 0:
        raise SdjobError(f"the compiler was ended by {signal.Signals(-child.returncode).name}.\n{errors}".strip())
    if child.returncode:
        raise error_for_exit_code(child.returncode, errors.strip())
    return Forecast.from_json(said.splitlines()[-1])


def settled_bytes(child: "subprocess.Popen[Any]", folder: Path) -> int | None:
    """None: the compiler came to its end before."""
    while child.poll() is None:
        for report in folder.glob(MEMORY_REPORT):
            if total := TOTAL_BYTES.search(report.read_text(encoding="utf-8")):
                return int(total[1])
        time.sleep(LOOK_EVERY_S)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

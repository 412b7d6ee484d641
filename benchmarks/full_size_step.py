"""A step of Stable Diffusion 1.5 at its full size on this CPU, by `sdjob run` with random weights: what memory and time it takes.

    python benchmarks/full_size_step.py --method lora --work DIR
    python benchmarks/full_size_step.py --method full --work DIR       # with gradient checkpointing

The run is ended after its first steps and commits nothing. It needs 5 GB of disk in DIR, and some 6 GB of memory for LoRA,
17 GB for full.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from throughput import Watch, Work, family, job_of, make

LIMIT_S = 1800.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["lora", "full"], required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--size", choices=["narrow", "sd15"], default="sd15")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.work) as name:
        folder = Path(name)
        make(folder, size=asked.size, pictures=1, side_px=asked.resolution)
        measure(folder, asked)


def measure(folder: Path, asked: argparse.Namespace) -> None:
    work = Work(asked.method, folder / "model", folder / "pictures", asked.resolution, 1, 1000, tuple(os.sched_getaffinity(0)))
    job = job_of(work, run=folder / "run")
    job["train"]["gradient_checkpointing"] = asked.method == "full"
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    argv = [sys.executable, "-m", "sdjob", "run", str(folder / "job.json"), "--log", "json"]
    born_s = time.time()
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(argv, stdout=log, stderr=log, env=os.environ | {"SDJOB_SCRATCH": str(folder / "scratch")})
    watch = Watch(child.pid)
    watch.start()
    try:
        ends_s = wait_for_steps(child, folder, steps=asked.steps)
    finally:
        for pid in list(family(child.pid))[::-1]:
            os.kill(pid, signal.SIGKILL)
        child.wait()
        watch.over.set()
    ready_s = next(line["time_s"] for line in lines(folder, "events") if line.get("kind") == "ready")
    each = ", ".join(f"{after - before:.1f}" for before, after in zip([ready_s, *ends_s], ends_s, strict=False))
    print(
        f"{asked.method}, {asked.resolution} px: ready after {ready_s - born_s:.1f} s; seconds to each step's end: {each}; ",
        end="",
    )
    print(f"{watch.peak_kib / 2**20:.2f} GiB at most")


def wait_for_steps(child: "subprocess.Popen[bytes]", folder: Path, *, steps: int) -> list[float]:
    until_s = time.monotonic() + LIMIT_S
    while True:
        ends_s = [line["time_s"] for line in lines(folder, "metrics") if "step" in line]
        if len(ends_s) >= steps:
            return ends_s[:steps]
        if child.poll() is not None or time.monotonic() > until_s:
            sys.exit((folder / "log").read_text(encoding="utf-8")[-4000:])
        time.sleep(1.0)


def lines(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    for file in sorted((folder / "run").glob(f"attempts/*/{kind}-*")):
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    main()

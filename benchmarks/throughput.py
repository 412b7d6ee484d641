"""The same training by sdjob, by a plain loop and by a diffusers example script, as whole processes that take turns.

    python benchmarks/throughput.py --method lora --threads 1 [--rounds 5] [--steps 25] [--batch 1] [--resolution 256]
        [--script train_text_to_image_lora.py] [--levers | --arm plain --arm sdjob ...]

Model, pictures, batch, precision (float32), seed, steps and processors are the same in all arms. The plain loop is plain_loop.py;
behind `plain` stand the levers that are pulled in it; `--levers` has an arm for each of them, with all before it. The script is
a diffusers one of that method, if there is one here; `--script-python` names the Python that has what it needs (datasets,
torchvision). `sdjob` is `sdjob run` with nothing encoded before; `sdjob-again` is the next run on that machine, which finds the
encodings.

Figures: images a second over the steps after the first `--warm-up`; seconds from the start of the process to the end of the first
step; the most memory at once, of all processes of the arm together (proportional set sizes, looked at five times a second); CPU
seconds an image, from the same steps. Ratios are taken round by round, against the first arm, and their median is given.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
# As tqdm shows it, after each step: "Steps:  12%|#2   | 3/25 [00:10<01:13,  3.3s/it]"
BAR = re.compile(rb"Steps:[^|\r\n]*\|[^|\r\n]*\|\s*(\d+)/\d+")
LOOK_S = 0.2
# What `sdjob` does of plain_loop.py's levers, on a CPU.
LEVERS = {
    "lora": ["encoders-once", "fused", "channels-last", "lora-as-one"],
    "full": ["encoders-once", "fused", "clip-where-needed"],
}


@dataclass(frozen=True)
class Reading:
    images_s: float
    first_step_s: float
    peak_mib: float
    cpu_s: float
    """An image. Other work on the machine hardly moves it."""


@dataclass(frozen=True)
class Work:
    """What all arms do."""

    method: str
    model: Path
    pictures: Path
    resolution: int
    batch: int
    steps: int
    cpus: tuple[int, ...]


# ---- what a process and its children take --------------------------------------------------------------------------------


def family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = [word for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from family(int(child))


def proportional_kib(pid: int) -> int:
    """https://www.kernel.org/doc/html/latest/filesystems/proc.html: shared pages are divided among those who share them."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) if found else 0


def cpu_s(pid: int) -> float:
    """With that of its children that have ended (https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, fields 14 to 17)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Watch(threading.Thread):
    """Looks at a process and its descendants until it is told that they are over."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_kib, self.over = pid, 0, threading.Event()
        self.spent: list[tuple[float, float]] = []
        """(when, CPU seconds until then)"""

    def run(self) -> None:
        while not self.over.wait(LOOK_S):
            alive = set(family(self.pid))
            self.peak_kib = max(self.peak_kib, sum(map(proportional_kib, alive)))
            self.spent.append((time.time(), sum(map(cpu_s, alive))))

    def cpu_between(self, start_s: float, end_s: float) -> float:
        times, spent = zip(*self.spent, strict=True)
        return float(np.interp(end_s, times, spent) - np.interp(start_s, times, spent))


# ---- the arms --------------------------------------------------------------------------------------------------------------


def job_of(work: Work, *, run: Path) -> dict[str, Any]:
    return {
        "apiVersion": "sdjob/v1", "name": "throughput", "model": {"source": str(work.model)},
        "data": {"source": str(work.pictures), "resolution": work.resolution},
        "train": {
            "method": work.method, "steps": work.steps, "global_batch": work.batch, "device_batch": work.batch,
            "precision": "fp32", "optimizer": {"learning_rate": 1e-4}, "loss": {"prediction": "epsilon"},
        },
        "checkpoint": {"to": str(run), "every_steps": 1_000_000}, "run": {"accelerator": "cpu:1"},
    }  # fmt: skip


def script_argv(work: Work, *, python: str, script: Path, out: Path) -> list[str]:
    given = {
        "pretrained_model_name_or_path": work.model, "train_data_dir": work.pictures, "resolution": work.resolution,
        "train_batch_size": work.batch, "max_train_steps": work.steps, "learning_rate": "1e-4", "seed": 0,
        "lr_scheduler": "constant", "lr_warmup_steps": 0, "checkpointing_steps": 1_000_000, "output_dir": out,
    }  # fmt: skip
    return [python, str(script), "--center_crop", *(f"--{name}={value}" for name, value in given.items())]


def plain_argv(work: Work, *, levers: Sequence[str]) -> list[str]:
    given = {name: getattr(work, name) for name in ("model", "pictures", "method", "resolution", "batch", "steps")}
    return [
        sys.executable, str(HERE / "plain_loop.py"), *(f"--{name}={value}" for name, value in given.items()),
        *(f"--lever={lever}" for lever in levers),
    ]  # fmt: skip


@dataclass
class Arms:
    work: Work
    folder: Path
    script: Path | None
    script_python: str

    def measure(self, arm: str) -> Reading:
        out = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            kind, *levers = arm.split("+")
            if kind == "plain":
                return self._told(plain_argv(self.work, levers=levers))
            if kind == "script":
                assert self.script is not None
                return self._told(script_argv(self.work, python=self.script_python, script=self.script, out=out / "out"))
            return self._sdjob(out, again=kind == "sdjob-again")
        finally:
            shutil.rmtree(out)

    def _told(self, argv: Sequence[str]) -> Reading:
        """Of an arm that prints its steps."""
        born_s = time.time()
        child, watch = self._start(argv, stdout=subprocess.PIPE)
        assert child.stdout is not None
        ends_s: dict[int, float] = {}
        said = b""
        while chunk := os.read(child.stdout.fileno(), 1 << 16):
            said = said[-300_000:] + chunk
            steps = [*BAR.findall(said), *re.findall(rb'"step": (\d+)', said)]
            for step in map(int, steps):
                ends_s.setdefault(step, time.time())
        self._finish(child, watch, said=said)
        ends_s.pop(0, None)
        return self._reading([ends_s[step] for step in sorted(ends_s)], born_s=born_s, watch=watch)

    def _sdjob(self, out: Path, *, again: bool) -> Reading:
        (out / "job.json").write_text(json.dumps(job_of(self.work, run=out / "run")), encoding="utf-8")
        scratch = self.folder / "scratch"
        if not again:
            shutil.rmtree(scratch, ignore_errors=True)
        born_s = time.time()
        argv = [sys.executable, "-m", "sdjob", "run", str(out / "job.json"), "--log", "json"]
        with (out / "log").open("wb") as log:
            child, watch = self._start(argv, stdout=log, SDJOB_SCRATCH=str(scratch))
            child.wait()
        self._finish(child, watch, said=(out / "log").read_bytes())
        lines = [line for file in sorted((out / "run").glob("attempts/*/metrics-*")) for line in file.read_text().splitlines()]
        return self._reading([json.loads(line)["time_s"] for line in lines], born_s=born_s, watch=watch)

    def _start(self, argv: Sequence[str], *, stdout: Any, **environment: str) -> tuple[subprocess.Popen[bytes], Watch]:
        threads = str(len(self.work.cpus))
        given = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", **environment}
        child = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, self.work.cpus)), *argv],
            stdout=stdout, stderr=subprocess.STDOUT, env=os.environ | given,
        )  # fmt: skip
        watch = Watch(child.pid)
        watch.start()
        return child, watch

    def _finish(self, child: subprocess.Popen[bytes], watch: Watch, *, said: bytes) -> None:
        if child.wait():
            sys.exit(f"{child.args} failed:\n{said.decode(errors='replace')[-4000:]}")
        watch.over.set()
        watch.join()

    def _reading(self, ends_s: Sequence[float], *, born_s: float, watch: Watch) -> Reading:
        if len(ends_s) != self.work.steps:
            sys.exit(f"{len(ends_s)} of {self.work.steps} steps were seen")
        steady_s = ends_s[ASKED.warm_up :]
        each_s = [after - before for before, after in pairwise(steady_s)]
        return Reading(
            images_s=self.work.batch * len(each_s) / sum(each_s),
            first_step_s=ends_s[0] - born_s,
            peak_mib=watch.peak_kib / 1024,
            cpu_s=watch.cpu_between(steady_s[0], steady_s[-1]) / (self.work.batch * len(each_s)),
        )


# ---- rounds ----------------------------------------------------------------------------------------------------------------


COLUMNS = {"images_s": "images/s", "cpu_s": "CPU s an image", "first_step_s": "first step, s", "peak_mib": "peak, MiB"}


def report(seen: dict[str, list[Reading]]) -> None:
    base, *_ = seen.values()
    print(f"| arm | {' | '.join(f'{column} | of the first arm' for column in COLUMNS.values())} |")
    print("|---" * (1 + 2 * len(COLUMNS)) + "|")
    for arm, readings in seen.items():
        cells = [
            f"{statistics.median(getattr(r, name) for r in readings):.3g} | {ratio(readings, base, of=name)}" for name in COLUMNS
        ]
        print(f"| {arm} | {' | '.join(cells)} |", flush=True)


def ratio(readings: Sequence[Reading], base: Sequence[Reading], *, of: str) -> str:
    """Median (least to most) over the rounds."""
    ratios = sorted(getattr(ours, of) / getattr(theirs, of) for ours, theirs in zip(readings, base, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def arms_asked() -> list[str]:
    if ASKED.arm:
        return ASKED.arm
    pulled = LEVERS[ASKED.method] if ASKED.levers else ["encoders-once"]
    plain = ["+".join(["plain", *pulled[:number]]) for number in range(len(pulled) + 1)]
    return [*(["script"] if ASKED.script else []), *plain, "sdjob"]


def make(folder: Path, *, size: str, pictures: int, side_px: int) -> None:
    """The model and the pictures, by a process of its own: this one must not hold torch beside the arms."""
    making = (
        f"import throughput_model as m, pathlib as p; f = p.Path({str(folder)!r}); m.write_model(f / 'model', size={size!r}); "
    )
    making += f"m.write_pictures(f / 'pictures', count={pictures}, side_px={side_px})"
    subprocess.run([sys.executable, "-c", making], cwd=HERE, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    arms = arms_asked()
    with tempfile.TemporaryDirectory(dir=ASKED.work) as name:
        folder = Path(name)
        make(folder, size=ASKED.size, pictures=ASKED.pictures, side_px=ASKED.resolution)
        cpus = tuple(sorted(os.sched_getaffinity(0))[-ASKED.threads :])
        work = Work(ASKED.method, folder / "model", folder / "pictures", ASKED.resolution, ASKED.batch, ASKED.steps, cpus)
        made = Arms(work, folder, ASKED.script, ASKED.script_python)
        seen: dict[str, list[Reading]] = {arm: [] for arm in arms}
        for round_ in range(ASKED.rounds):
            for arm in arms:
                seen[arm].append(made.measure(arm))
                print(f"round {round_ + 1}, {arm}: {json.dumps(asdict(seen[arm][-1]))}", file=sys.stderr, flush=True)
    print(f"{ASKED.method}, batch {ASKED.batch}, {ASKED.resolution} px, {ASKED.threads} thread(s), {ASKED.rounds} rounds")
    report(seen)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    numbers = {"threads": 1, "rounds": 5, "steps": 25, "warm-up": 4, "batch": 1, "resolution": 256, "pictures": 8}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--size", choices=["narrow", "sd15"], default="narrow", help="of the model; throughput_model.py")
    parser.add_argument("--script", type=Path, help="a diffusers script of that method")
    parser.add_argument("--script-python", default=sys.executable)
    parser.add_argument("--arm", action="append", help="script, plain, plain+LEVER..., sdjob, sdjob-again; may be repeated")
    parser.add_argument("--levers", action="store_true", help="plain, plain+LEVER, plain+LEVER+LEVER, ... and sdjob")
    parser.add_argument("--work", type=Path, help="a folder on a disk with room for the model")
    return parser.parse_args()


if __name__ == "__main__":
    ASKED = arguments()
    main()

"""`sdjob run` as a real process: started, watched through its JSON log, signalled, waited for; and what it leaves behind."""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fakes.pictures import write_picture_folder
from fakes.processes import trainers_of
from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.history import History
from sdjob.ckpt.verify import Report, verify
from sdjob.core.clock import SystemClock
from sdjob.core.log import Log
from sdjob.ledger.read import AttemptLedger, read_ledger
from sdjob.store.local import LocalStore

SDJOB = Path(sys.executable).with_name("sdjob")
# Only ever reached where something hangs: nothing is expected to take a time. A first step that is compiled may, beside other
# tests, take some minutes.
HANG_S = 900.0
POLL_S = 0.002

Event = dict[str, Any]


# ---- jobs ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A job file in a folder of its own; `to` and `out` are where it keeps its checkpoints and publishes."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "job.yaml"

    @property
    def to(self) -> Path:
        return self.folder / "run"

    @property
    def out(self) -> Path:
        return self.folder / "published"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def start(self, *overrides: str, environment: dict[str, str] | None = None, verb: str = "run") -> "Running":
        """`overrides`: as for --set."""
        settings = [argument for override in overrides for argument in ("--set", override)]
        command = [str(SDJOB), verb, "--log", "json", str(self.file), *settings]
        return Running.begin(command, folder=self.folder, environment={"SDJOB_SCRATCH": str(self.scratch), **(environment or {})})

    def run(self, *overrides: str, environment: dict[str, str] | None = None, verb: str = "run") -> "Ended":
        return self.start(*overrides, environment=environment, verb=verb).end()

    # -- what it has left --

    @property
    def log(self) -> CommitLog:
        quiet = Log(mode="text", stream=io.StringIO(), secrets=())
        return CommitLog(LocalStore(self.to), clock=SystemClock(), log=quiet)

    def history(self) -> History:
        return self.log.replay()

    def verified(self) -> Report:
        """Every byte of every live commit, read."""
        report = verify(self.log)
        assert report.is_whole, report
        return report

    def committed_steps(self) -> list[int]:
        return sorted(commit.step for commit in self.history().live)

    def done_digest(self) -> str:
        done = self.history().done
        assert done is not None, "the run is not done"
        return done.digest

    def published(self, folder: Path | None = None) -> dict[str, bytes]:
        """Every published file by its name: weights, pictures, card, and the record without the one line that names this run."""
        files = tree(folder or self.out)
        record = json.loads(files["sdjob.json"])
        assert record.pop("identity")
        return {**files, "sdjob.json": json.dumps(record).encode()}

    def ledgers(self) -> list[AttemptLedger]:
        return read_ledger(LocalStore(self.to))

    def losses(self) -> dict[int, float]:
        """By step, from the ledgers; a step that was trained again counts as its last attempt saw it."""
        return {record["step"]: record["loss"] for ledger in self.ledgers() for record in ledger.metrics}

    def held_out_losses(self) -> dict[int, float]:
        """Of the steps that have one; as with losses."""
        told = (record for ledger in self.ledgers() for record in ledger.metrics)
        return {record["step"]: record["held_out_loss"] for record in told if "held_out_loss" in record}

    def samples(self) -> dict[str, bytes]:
        """Validation pictures by attempt, step and name."""
        return {name: data for name, data in tree(self.to / "attempts").items() if "/samples/" in name}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its name; what a store keeps aside is not among them."""
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_job(folder: Path, *, model: Path, pictures: Path, **fields: Any) -> Job:
    """A small LoRA job; `fields` are changes to it by their paths with `__` for the dot, such as train__method="full"."""
    folder.mkdir(parents=True)
    job = Job(folder)
    content: dict[str, Any] = {
        "apiVersion": "sdjob/v1",
        "name": "tiny",
        "model": {"source": str(model)},
        "data": {"source": str(pictures), "resolution": 64},
        "train": {"method": "lora", "steps": 8, "global_batch": 2, "device_batch": 1, "optimizer": {"learning_rate": 0.01}},
        "validation": {"prompts": ["a red circle"], "every_steps": 1000, "images": 1, "inference_steps": 2},
        # Kept all: pruning waits for readers of what it retires, which would only take time here.
        "checkpoint": {"to": str(job.to), "every_steps": 2, "keep": 100},
        "publish": [{"to": str(job.out)}],
        "run": {"accelerator": "cpu:1"},
    }
    for path, value in fields.items():
        set_field(content, path.split("__"), value)
    job.file.write_text(yaml.safe_dump(content, sort_keys=False))
    return job


def set_field(content: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        content = content.setdefault(name, {})
    content[path[-1]] = value


# ---- what runs share -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workshop:
    """Models, pictures and finished runs that all tests share, in all of pytest's processes: made once, then only read."""

    folder: Path

    def model(self, family: str = "sd1") -> Path:
        from fakes.tiny_sdxl import write_family

        return self._made(f"model-{family}", partial(write_family, family=family))

    @property
    def pictures(self) -> Path:
        return self._made("pictures", partial(write_picture_folder, count=7))

    def job(self, folder: Path, *, family: str = "sd1", **fields: Any) -> Job:
        return write_job(folder, **{"model": self.model(family), "pictures": self.pictures, **fields})

    def finished(self, name: str, *, family: str = "sd1", environment: dict[str, str] | None = None, **fields: Any) -> Job:
        """An uninterrupted run of this job, to compare with. Never run it again: it is everybody's."""

        def make(folder: Path) -> None:
            ended = self.job(folder / "job", family=family, **fields).run(environment=environment)
            assert ended.code == 0, ended.output

        return Job(self._made(f"finished-{name}", make) / "job")

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        folder = self.folder / name
        with locked(self.folder / f"{name}.lock"):
            mark = self.folder / f"{name}.made"
            if not mark.exists():
                make(folder)
                mark.touch()
        return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a file's lock against other threads and processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ---- processes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    code: int
    """Negative: minus the signal that ended it."""

    events: tuple[Event, ...]
    output: str
    """All of stderr, with what is no event (a traceback)."""

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]

    def one(self, kind: str) -> Event:
        found = self.of(kind)
        assert len(found) == 1, f"{len(found)} events of kind {kind}:\n{self.output}"
        return found[0]

    @property
    def error(self) -> str:
        return self.one("error")["message"]

    @property
    def start_step(self) -> int:
        """Where its training began."""
        return self.one("train")["start_step"]

    @property
    def committed(self) -> list[int]:
        return [event["step"] for event in self.of("commit")]


@dataclass
class Running:
    process: "subprocess.Popen[bytes]"
    _lines: list[bytes] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _over: bool = False
    _reader: threading.Thread | None = None

    @classmethod
    def begin(cls, command: list[str], *, folder: Path, environment: dict[str, str]) -> "Running":
        """In a session of its own, as a shell would start it in the foreground."""
        with pinned():
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        running = cls(process)
        running._reader = threading.Thread(target=running._read, daemon=True)
        running._reader.start()
        return running

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                with self._news:
                    self._lines.append(line)
                    if line.startswith(b"{"):
                        self._events.append(json.loads(line))
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def wait_for(self, kind: str, **fields: Any) -> Event:
        """The first event of this kind with these fields; a field's value may be a predicate."""

        def found() -> Event | None:
            return next((e for e in self._events if e["event"] == kind and fits(e, fields)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._over, timeout=HANG_S)
            event = found()
        assert event is not None, f"no event {kind} with {fields}:\n{self.output}"
        return event

    def wait_for_events(self, count: int) -> None:
        """Until it has said so much, or is over."""
        with self._news:
            self._news.wait_for(lambda: len(self._events) >= count or self._over, timeout=HANG_S)

    @property
    def output(self) -> str:
        return b"".join(self._lines).decode(errors="replace")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """As the terminal does for Ctrl-C."""
        os.killpg(self.pid, number)

    def kill(self) -> "Ended":
        self.signal(signal.SIGKILL)
        return self.end()

    def end(self) -> Ended:
        """Waits for the process, and for the end of its log: nobody that it started holds that any more."""
        try:
            code = self.process.wait(HANG_S)
            assert self._reader is not None
            self._reader.join(HANG_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return Ended(code, tuple(self._events), self.output)

    def trainers(self, *, count: int = 1) -> list[int]:
        """The ids of its trainer processes, once so many are there."""
        wait_until(lambda: len(trainers_of(self.pid)) == count, what=f"{count} trainer processes")
        return trainers_of(self.pid)


def fits(event: Event, fields: dict[str, Any]) -> bool:
    return all(wanted(event.get(k)) if callable(wanted) else event.get(k) == wanted for k, wanted in fields.items())


@contextmanager
def pinned() -> Iterator[None]:
    """What is started within has one core, so that a run takes one thread; pytest's processes take one each.

    A child inherits it from the thread that starts it. A preexec_fn would do as well, but makes Python fork: the kernel then
    copies the page tables of all that pytest has in memory before the child begins, some 50 ms for 3 GB."""
    cores = os.sched_getaffinity(0)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(cores)[worker % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def wait_until(condition: Callable[[], bool], *, what: str) -> None:
    """For what no event tells: a process that is there or gone, a file that appears."""
    deadline_s = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(POLL_S)

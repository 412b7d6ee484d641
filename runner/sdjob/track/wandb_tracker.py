"""Weights & Biases: one run for all attempts, since its id follows from the run's own.

Online the service knows its last step, and is told what comes after it. Offline every attempt writes the whole run anew,
from the ledger, into a folder on scratch, which takes the place of the last attempt's under PLACE/wandb: `wandb sync` on it
sends one run, and what had been sent of it before is replaced.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdjob.core.channel import Message
from sdjob.core.clock import Clock
from sdjob.core.log import SECRET_NAME
from sdjob.core.proc import Child, start
from sdjob.store.base import ObjectMissingError, ObjectStore
from sdjob.track.access import WandbMode
from sdjob.track.row import Final, Picture, Row
from sdjob.track.tracker import TrackerLostError

UPLOAD_EVERY_S = 60.0
UPLOAD_SHARE = 20  # the file is uploaded whole, so at most a twentieth of the time goes into it
OWN_FILES = ("files/", "run-")  # of the run's folder; the rest are the library's logs
# They would override what is said here, or lead to another process' service.
NOT_INHERITED = {
    "WANDB_SERVICE",
    "WANDB_RUN_ID",
    "WANDB_RESUME",
    "WANDB_DIR",
    "WANDB_CONSOLE",
    "WANDB_SWEEP_ID",
    "WANDB_DISABLED",
}


@dataclass(frozen=True)
class WandbRun:
    run_id: str
    name: str
    project: str
    config: Mapping[str, Any]
    mode: WandbMode
    began_s: float
    """Unix time of the first attempt, which names the offline folder."""

    @property
    def folder(self) -> str:
        """Below the run's place; `wandb sync` knows its folders by such names."""
        began = datetime.fromtimestamp(self.began_s, UTC)
        return f"wandb/offline-run-{began:%Y%m%d_%H%M%S}-{self.run_id}/"


def wandb_run_id(run_id: str) -> str:
    """Small letters and digits; the same for all attempts at a run."""
    return run_id[:16]


def start_child(scratch: Path, *, mode: WandbMode, environment: Mapping[str, str]) -> Child:
    """From the main thread."""
    for folder in ("cache", "data"):
        (scratch / folder).mkdir(parents=True)
    own = {
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CACHE_DIR": str(scratch / "cache"),
        "WANDB_DATA_DIR": str(scratch / "data"),
        "WANDB_ARTIFACT_DIR": str(scratch / "data"),
    }
    wanted = {name: value for name, value in environment.items() if needs(name, mode=mode)}
    return start((sys.executable, "-P", "-m", "sdjob.track.wandb_child"), environment={**wanted, **own})


def needs(name: str, *, mode: WandbMode) -> bool:
    """Of the secrets in the environment it gets its own, and that only where it is to use it."""
    if SECRET_NAME.search(name):
        return mode == "online" and name.startswith("WANDB_")
    return name not in NOT_INHERITED


@dataclass
class WandbTracker:
    run: WandbRun
    child: Child
    store: ObjectStore
    """One that tries again by itself."""

    scratch: Path
    clock: Clock
    is_owner: Callable[[], bool]
    """Whether this attempt still holds the run: an older one's upload must not take a newer one's place."""

    on_url: Callable[[str], None]
    name: str = "wandb"
    _folder: Path = field(default_factory=Path)
    _uploaded: set[str] = field(default_factory=set[str])
    _next_upload_s: float = float("-inf")

    def open(self) -> int:
        told = {"run_id": self.run.run_id, "name": self.run.name, "project": self.run.project, "config": self.run.config}
        self._tell({"event": "start", "mode": self.run.mode, "folder": str(self.scratch), **told})
        answer = self._hear("open")
        self._folder = Path(answer["folder"])
        if answer["url"]:
            self.on_url(answer["url"])
        return answer["through"]

    def add(self, row: Row) -> None:
        pictures = [{"path": str(path), "prompt": drawn.prompt} for drawn in row.pictures if (path := self._fetched(drawn))]
        self._tell({"event": "row", "step": row.step, "time_s": row.time_s, "values": row.values, "pictures": pictures})

    def _fetched(self, drawn: Picture) -> Path | None:
        """None where somebody has removed it."""
        path = self.scratch / drawn.key.replace("/", "-")
        try:
            self.store.read_to(drawn.key, path)
        except ObjectMissingError:
            return None
        return path

    def idle(self) -> None:
        """Nothing: the library sends and writes by itself."""

    def committed(self) -> None:
        if self.run.mode == "offline" and self.clock.monotonic_s() >= self._next_upload_s:
            self._tell({"event": "sync"})
            self._hear("synced")
            if self._is_longer():
                self._upload()

    def close(self, final: Final | None) -> None:
        summary = {"step": final.step, "digest": final.digest} if final else None
        self._tell({"event": "finish", "summary": summary})
        self._hear("finished")
        if self.run.mode == "offline":
            self._upload()
            self._sweep()
        self.child.process.wait()

    def abort(self) -> None:
        self.child.kill()

    @property
    def _file(self) -> str:
        return f"run-{self.run.run_id}.wandb"

    def _is_longer(self) -> bool:
        """Than what lies at the place: perhaps an earlier attempt's, with steps that this one has not come to again."""
        there = self.store.stat(self.run.folder + self._file)
        return there is None or there.size_bytes <= (self._folder / self._file).stat().st_size

    def _upload(self) -> None:
        """Pictures first, so that what names them never stands without them; they never change. The run's own file does,
        while it is read: a copy is uploaded."""
        if not self.is_owner():
            raise TrackerLostError("another attempt owns the run now")
        started_s = self.clock.monotonic_s()
        files = own_files(self._folder)
        own = files.pop(self._file)
        for name in files.keys() - self._uploaded:
            self.store.write_file(self.run.folder + name, files[name])
        self._uploaded |= files.keys()
        copy = Path(shutil.copyfile(own, self.scratch / "copy.wandb"))
        self.store.write_file(self.run.folder + self._file, copy)
        took_s = self.clock.monotonic_s() - started_s
        self._next_upload_s = self.clock.monotonic_s() + max(UPLOAD_EVERY_S, UPLOAD_SHARE * took_s)

    def _sweep(self) -> None:
        """What an earlier attempt left there and this one has not, such as the mark that a shorter run was sent already."""
        mine = {self.run.folder + name for name in own_files(self._folder)}
        self.store.delete([info.key for info in self.store.list(self.run.folder) if info.key not in mine])
        shutil.rmtree(self._folder)

    def _tell(self, message: Message) -> None:
        if not self.child.channel.send(message):
            self._hear("nothing more")  # its last words, where it had any

    def _hear(self, event: str) -> Message:
        answers = self.child.channel.receive()
        if not answers:
            raise TrackerLostError("its process is gone")
        answer = answers[0]
        if answer["event"] != event:
            raise TrackerLostError(answer.get("what") or f"it said {answer['event']} where {event} was due")
        return answer


def own_files(folder: Path) -> dict[str, Path]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path for name, path in named.items() if name.startswith(OWN_FILES)}

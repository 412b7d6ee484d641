"""sdjob in containers: podman as root, without a daemon, in the way that a hardened node runs a pod."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.running import Ended, Job, Running, pinned

ROOT = Path(__file__).resolve().parents[2]
USER = 65532
# As little as a pod gets under the Pod Security Standard "restricted", and neither a network nor a root that can be written to.
HARDENED = (
    "--read-only",
    f"--user={USER}",
    "--network=none",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp",
)
# runc, since crun refuses hybrid cgroups; limits that may be set by a machine that is a container itself.
CONFIGURATION = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
"""
# Of the quickstart: short enough to be run often, long enough to be caught in the middle.
SHORT = (
    "train.steps=150",
    "train.global_batch=4",
    "train.device_batch=4",
    "train.schedule.warmup_steps=0",
    "validation.every_steps=1000",
    "validation.images=1",
    "validation.inference_steps=2",
    "checkpoint.every_steps=10",
    "checkpoint.keep=100",
    "run.accelerator=cpu:1",
)
IN_SCRATCH = ("checkpoint.to=run", "publish=[{to: published}]")


def configure(folder: Path) -> dict[str, str]:
    """The environment in which podman and buildah work on such a machine."""
    file = folder / "containers.conf"
    file.write_text(CONFIGURATION)
    return {"CONTAINERS_CONF": str(file), "BUILDAH_ISOLATION": "chroot"}


def podman(*arguments: str | Path) -> str:
    """stdout. On the core of all runs: a container inherits it, and its trainer counts its threads by it."""
    argv = ["podman", *map(str, arguments)]
    with pinned():
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stderr}"
    return done.stdout


def inspect(kind: str, name: str) -> dict[str, Any]:
    return json.loads(podman(kind, "inspect", name))[0]


def owned_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    os.chown(path, USER, USER)
    return path


def settings(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


@dataclass(frozen=True)
class Container:
    name: str
    running: Running

    @classmethod
    def quickstart(cls, image: str, *, job: Job, name: str, options: tuple[str, ...] = ()) -> "Container":
        """A run of the quickstart, in pictures and model the repository's; all that it writes is in the job's folder."""
        volumes = [f"--volume={job.folder}:/scratch", f"--volume={ROOT / 'jobspecs'}:/scratch/jobspecs:ro"]
        command = ["run", "--log", "json", "jobspecs/quickstart.yaml", *settings(*SHORT, *IN_SCRATCH)]
        argv = ["podman", "run", "--rm", "--replace", f"--name={name}", *HARDENED, *volumes, *options, image, *command]
        return cls(name, Running.begin(argv, folder=job.folder, environment={}))

    def first_process(self) -> int:
        """Its number on the machine."""
        return int(podman("inspect", "--format={{.State.Pid}}", self.name))


@dataclass(frozen=True)
class Straight:
    """A run that nothing disturbed."""

    job: Job
    ended: Ended

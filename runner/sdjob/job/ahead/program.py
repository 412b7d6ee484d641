"""What the step's own program needs, asked of a trainer's process; an answer is kept by the content of the question."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sdjob
from sdjob.core.errors import UnavailableError, UsageError, error_for_exit_code
from sdjob.job.ahead.task import ahead_task
from sdjob.job.launch import QUIET
from sdjob.plan.models import KnownModel
from sdjob.plan.program import Program
from sdjob.spec.hardware import parse_accelerator
from sdjob.spec.job import JobSpec
from sdjob.spec.task import TrainTask, write_task

# What is imported, and its line for pip; and whose versions an answer depends on.
NEEDED = {"torch": (("torch", "sdjob[torch]"),), "flax": (("jax", "sdjob[flax]"), ("libtpu", "sdjob[tpu]"))}
VERSIONS = {
    "torch": ("torch", "diffusers", "transformers", "peft", "accelerate"),
    "flax": ("jax", "jaxlib", "libtpu", "flax", "optax"),
}


def program_ahead(job: JobSpec, *, model: KnownModel, keep: Path, memory_alone: bool) -> Program:
    """`keep`: the folder of answers. UsageError: it cannot be compiled ahead; UnavailableError: a package is missing."""
    backend = job.train.backend
    if backend == "flax" and parse_accelerator(job.run.accelerator).kind != "tpu":
        raise UsageError(
            "flax compiles ahead for a TPU alone.", where="run.accelerator", next_step="Name one, as tpu-v5e:2x4@8t."
        )
    if job.train.fsdp:
        raise UsageError(
            "torch's step is made ahead on one device, and the state is spread over several.", where="train.fsdp",
            next_step="Plan without --compile.",
        )  # fmt: skip
    for package, extra in NEEDED[backend]:
        if util.find_spec(package) is None:
            raise UnavailableError(f"--compile needs {package}, which is not installed.", next_step=f"pip install '{extra}'")
    with TemporaryDirectory(prefix="sdjob-plan-") as folder:
        task = ahead_task(job, model=model, folder=Path(folder))
        kept = keep / f"{question(task, memory_alone=memory_alone)}.json"
        if (known := read(kept)) is None:
            known = asked(task, folder=Path(folder), memory_alone=memory_alone)
            write(known, kept)
        return known


def asked(task: TrainTask, *, folder: Path, memory_alone: bool) -> Program:
    file = folder / "task.json"
    write_task(task, file)
    backend = task.job.train.backend
    options = ["--memory"] if memory_alone and backend == "flax" else []
    argv = [sys.executable, "-P", "-m", f"sdjob.train_{backend}.forecast", str(file), *options]
    done = subprocess.run(
        argv, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise error_for_exit_code(done.returncode, done.stderr.strip() or f"the forecast ended with {done.returncode}.")
    told = json.loads(done.stdout.splitlines()[-1])
    return of_torch(told) if backend == "torch" else of_tpu(told)


def of_torch(told: Mapping[str, Any]) -> Program:
    return Program("torch's own step, traced without numbers", told["peak_bytes"], told["parts"], told["flops"], None, None)


def of_tpu(told: Mapping[str, Any]) -> Program:
    names = {"arguments": "argument_bytes", "temporaries": "temporary_bytes", "code": "code_bytes"}
    parts = {name: told[field] for name, field in names.items() if told[field] is not None}
    return Program(
        "the TPU's own compiler", told["needed_bytes"], parts, told["flops"], told["accessed_bytes"], told["hbm_bytes"]
    )


# ---- answers that are kept -------------------------------------------------------------------------------------------------


def question(task: TrainTask, *, memory_alone: bool) -> str:
    """A hash of all that the answer depends on: job, configurations, packages, our own code."""
    job = task.job
    train = job.train.model_dump(mode="json", exclude={"seed", "steps", "epochs", "init_from"})
    about: dict[str, Any] = {
        "train": train,
        "data": {"resolution": job.data.resolution.model_dump(), "crop": job.data.crop, "prior": job.data.prior is not None},
        "run": {"accelerator": job.run.accelerator, "nodes": job.run.nodes, "slices": job.run.slices},
        "model": {str(path.relative_to(task.model)): hashed([path]) for path in sorted(task.model.rglob("*.json"))},
        "versions": {name: version_of(name) for name in VERSIONS[job.train.backend]},
        "code": hashed(sorted(Path(sdjob.__file__).parent.rglob("*.py"))),
        "memory_alone": memory_alone,
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def hashed(files: Iterable[Path]) -> str:
    together = hashlib.sha256()
    for file in files:
        together.update(file.read_bytes() + b"\0")
    return together.hexdigest()


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def read(kept: Path) -> Program | None:
    try:
        return Program(**json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # not there, or not ours: it is asked again


def write(found: Program, kept: Path) -> None:
    """A folder that cannot be written to costs time at the next question, and nothing else."""
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = kept.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(asdict(found)), encoding="utf-8")
        fresh.replace(kept)

"""Python, sdjob, and the packages of its extras: what is installed, and the pip line for what is not."""

import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sdjob import __version__
from sdjob.core.errors import UnavailableError
from sdjob.job.doctor.finding import Finding, failed, ok, warning
from sdjob.job.machine import installed_version
from sdjob.spec.job import JobSpec
from sdjob.spec.places import parse_place
from sdjob.spec.sense.places import named_places

CORE = ("numpy", "pillow", "pydantic", "pyyaml", "safetensors")
# As in pyproject.toml, which a test compares with this.
EXTRAS = {
    "torch": ("accelerate", "diffusers", "peft", "torch", "transformers"),
    "flax": ("flax", "jax", "optax", "tokenizers"),
    "tpu": ("libtpu",),
    "s3": ("boto3",),
    "gcs": ("google-cloud-storage",),
    "hub": ("huggingface_hub",),
    "data": ("datasets",),
    "track": ("tensorboard", "wandb"),
    "prodigy": ("prodigyopt",),
    "adamw8bit": ("bitsandbytes",),
    "xformers": ("xformers",),
}
# Other devices do without; torch's own attention does the same; few jobs name these optimizers.
LUXURIES = {"tpu", "xformers", "prodigy", "adamw8bit"}
SCHEME_EXTRAS = {"s3": "s3", "gs": "gcs", "hf": "hub"}


def python() -> Iterator[Finding]:
    yield ok("python", f"{platform.python_implementation()} {platform.python_version()} at {sys.prefix}.")


def own() -> Iterator[Finding]:
    yield ok("sdjob", f"{__version__} with {versions(CORE)}.")


def extras(job: JobSpec | None) -> Iterator[Finding]:
    """All of them, or those that the job needs: then one that is missing is a failure."""
    needed = tuple(EXTRAS) if job is None else needed_extras(job)
    missing = {extra: absent(packages_of(extra, job)) for extra in needed}
    for extra in needed:
        if present := [name for name in packages_of(extra, job) if name not in missing[extra]]:
            yield ok("packages", f"{extra}: {versions(present)}.")
        if missing[extra] and job is not None:
            yield failed("packages", not_installed(extra, names=missing[extra]))
    lacking = [extra for extra in needed if missing[extra] and extra not in LUXURIES]
    if lacking and job is None:
        names = ", ".join(f"{extra} ({', '.join(missing[extra])})" for extra in lacking)
        yield warning(
            "packages", f"not installed: {names}.", next_step=f"For what you need of it: pip install 'sdjob[{','.join(lacking)}]'"
        )


def needed_extras(job: JobSpec) -> tuple[str, ...]:
    places = {field: parse_place(text, base=Path.cwd()) for field, text in named_places(job).items()}
    needed = {job.train.backend, *(SCHEME_EXTRAS[place.scheme] for place in places.values() if place.scheme != "file")}
    needed |= {"data"} if any(place.scheme == "hf" for field, place in places.items() if field.startswith("data.")) else set()
    needed |= {"track"} if job.track else set()
    needed |= {job.train.optimizer.name} & {*EXTRAS}
    return tuple(extra for extra in EXTRAS if extra in needed)


def packages_of(extra: str, job: JobSpec | None) -> Sequence[str]:
    """Of the trackers only those that the job names."""
    return job.track if extra == "track" and job is not None else EXTRAS[extra]


def not_installed(extra: str, *, names: Sequence[str]) -> UnavailableError:
    are = "is" if len(names) == 1 else "are"
    return UnavailableError(
        f"{', '.join(names)} {are} not installed, and the job needs {'it' if len(names) == 1 else 'them'}.",
        next_step=f"pip install 'sdjob[{extra}]'",
    )


def absent(names: Sequence[str]) -> list[str]:
    return [name for name in names if installed_version(name) is None]


def versions(names: Sequence[str]) -> str:
    return ", ".join(f"{name} {installed_version(name)}" for name in names)

"""The places that a job reads: whether they are there and may be listed, and how much they hold."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from sdjob.core.errors import DataError, MissingError
from sdjob.core.retry import Backoff, with_retries
from sdjob.job.doctor.checkup import Check
from sdjob.job.doctor.finding import Finding, asked, not_fatal, ok
from sdjob.job.doctor.hardware import readable
from sdjob.job.model_files import SAFE, config_files, fetched_files
from sdjob.job.one_file import named, one_file_of
from sdjob.job.pins import config_place, data_place, init_place, model_place, vae_place
from sdjob.spec.job import JobSpec
from sdjob.spec.places import Place, Scheme
from sdjob.spec.sources import data_sources
from sdjob.store.base import ObjectInfo, ObjectStore, TransientStoreError
from sdjob.store.patient import PatientStore

INIT = "train.init_from"
Open = Callable[[Place], ObjectStore]
MOST_LISTED = 100_000  # a data set of more is not listed to its end: that would take minutes
BRIEF = Backoff(attempts=2, base_s=0.5)  # a person waits for the answer
ENDPOINTS: dict[Scheme, tuple[str, ...]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("STORAGE_EMULATOR_HOST",),
    "hf": ("HF_ENDPOINT",),
    "file": (),
}


@dataclass(frozen=True)
class Asker:
    """How places are asked, and what is remembered of the answers."""

    open: Open
    resolve: Callable[[Place], Place]
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    to_fetch: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes that a run would bring to this machine, by field."""

    def store(self, place: Place) -> PatientStore:
        return PatientStore(self.open(place), backoff=BRIEF)

    def identity(self, store: PatientStore, *, scheme: Scheme) -> str:
        """Who asks, and where another server than the kind's own is asked."""
        names = [name for name in ENDPOINTS[scheme] if self.environment.get(name)]
        return store.credentials() + (f", at {self.environment[names[0]]} (from {names[0]})" if names else "")


def source_checks(job: JobSpec, *, asker: Asker) -> Iterator[Check]:
    places = {
        "model.source": model_place(job),
        "model.config": config_place(job),
        "model.vae": vae_place(job),
        **{f"{source.field}.source": data_place(source) for source in data_sources(job.data)},
        INIT: init_place(job),
    }
    for name, place in places.items():
        if place is not None:
            yield Check(name, lambda name=name, place=place: source(name, place=place, job=job, asker=asker))


def source(name: str, *, place: Place, job: JobSpec, asker: Asker) -> Iterator[Finding]:
    """What cannot be read because of missing credentials says so when it is listed; much can be read without them."""
    if place.scheme == "file" and place.path.is_file() and name not in may_be_files(job):
        kind = DataError if name.startswith("data.") else MissingError  # as a run ends
        raise kind(
            "is a file, and a folder is needed.",
            where=place.uri,
            next_step="Name the folder that it is in, or the one that is meant.",
        )
    asker.open(place)  # a missing SDK ends the check here
    if place.scheme != "file":
        yield from asked(name, lambda: [credentials(name, place=place, asker=asker)], otherwise=not_fatal)
    if place.scheme == "hf":
        revision, place = place.revision, asker.resolve(place)
        yield ok(name, f"{revision} is commit {str(place.revision)[:12]}.")
    yield held(name, place=place, infos=listed(place, asker=asker), job=job, asker=asker)


def may_be_files(job: JobSpec) -> set[str]:
    return {INIT, "model.source"} if one_file_of(job) else {INIT}


def credentials(name: str, *, place: Place, asker: Asker) -> Finding:
    store = asker.store(place)
    return ok(name, f"{store.uri} as {asker.identity(store, scheme=place.scheme)}.")


def listed(place: Place, *, asker: Asker) -> list[ObjectInfo]:
    """A place may be one file, on this machine or in a bucket."""
    if place.scheme == "file" and place.path.is_file():
        return [ObjectInfo(place.path.name, place.path.stat().st_size)]
    store = asker.open(place)
    beginning = with_retries(lambda: list(islice(store.list(""), MOST_LISTED)), transient=(TransientStoreError,), backoff=BRIEF)
    if beginning:
        return beginning
    prefix, _, file = place.prefix.rpartition("/")
    if file.endswith(SAFE) and (info := asker.store(replace(place, prefix=prefix)).stat(file)):
        return [info]
    there = place.scheme == "file" and place.path.exists()
    raise MissingError(
        "holds nothing." if there else "is not there, or holds nothing.",
        where=store.uri,
        next_step="Check the spelling of the place" + (": a relative path starts in the present folder." if not there else "."),
    )


def held(name: str, *, place: Place, infos: list[ObjectInfo], job: JobSpec, asker: Asker) -> Finding:
    """Of the model only the files that a run uses; MissingError where it is no model, or none of safetensors."""
    used = infos
    names = [info.key for info in infos]
    if name == "model.source":
        single, variant = one_file_of(job), job.model.variant
        chosen = (
            named(names, single) if single else fetched_files(names, variant=variant, method=job.train.method, where=place.uri)
        )
        used = [info for info in infos if info.key in {*chosen}]
    if name == "model.config":
        chosen = config_files(names, where=place.uri, field=name)
        used = [info for info in infos if info.key in {*chosen}]
    size_bytes = sum(info.size_bytes for info in used)
    if place.scheme != "file":
        asker.to_fetch[name] = size_bytes
    return ok(name, f"{place.uri} can be listed: {counted(infos, used=used)} {readable(size_bytes)}.")


def counted(infos: list[ObjectInfo], *, used: list[ObjectInfo]) -> str:
    if len(infos) == MOST_LISTED:
        return f"at least {MOST_LISTED} files, those alone have"
    plural = "file" if len(infos) == 1 else "files"
    return f"{len(infos)} {plural}," if len(used) == len(infos) else f"{len(used)} of its {len(infos)} {plural} are used,"

"""What a finished run leaves behind: builds the published folder from a checkpoint and takes it to every place."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sdjob import __version__
from sdjob.core.errors import DeniedError, UsageError
from sdjob.core.log import Log
from sdjob.core.retry import Backoff, with_retries
from sdjob.data.index import Index
from sdjob.data.roles import only_caption, roles_of
from sdjob.diffusion.family import read_base_model
from sdjob.job.card import CARD_NAME, CardFacts, SamplePicture, model_card
from sdjob.job.licence import base_licence
from sdjob.job.publish import publish
from sdjob.job.record import RECORD_NAME, Publication, public_job
from sdjob.job.resume import Facts
from sdjob.job.weights import build_published
from sdjob.spec.job import JobSpec
from sdjob.spec.places import parse_place
from sdjob.store.base import ObjectInfo, ObjectStore, TransientStoreError
from sdjob.store.open import open_store
from sdjob.store.patient import PatientStore


@dataclass(frozen=True)
class Result:
    """A committed state that is about to be published."""

    checkpoint: Path
    step: int
    digest: str
    facts: Facts
    """Of its commit."""


def publish_places(job: JobSpec) -> list[str]:
    """URIs, in the job's order."""
    return [parse_place(target.to, base=Path.cwd()).uri for target in job.publish]


def check_publish_access(job: JobSpec) -> None:
    """Before a day of training: DeniedError (77), MissingError (66: a bucket), UsageError (64: no folder) or UnavailableError
    (69) where a place could not be published to after it."""
    for target in job.publish:
        place = parse_place(target.to, base=Path.cwd())
        store = PatientStore(open_store(place), backoff=Backoff())
        if place.scheme == "hf":
            from sdjob.store.hub_rights import writing_rights  # noqa: PLC0415  the Hub's client is slow to import

            asked = partial(writing_rights, place, private=target.private)
            with_retries(asked, transient=(TransientStoreError,), backoff=Backoff())
        elif place.scheme == "file":
            refuse_unwritable(place.path, where=f"publish: {place.uri}")
        else:
            store.credentials()
            store.stat(RECORD_NAME)  # a publish looks for it first


def refuse_unwritable(folder: Path, *, where: str) -> None:
    """Of what is not there yet the nearest folder above it counts."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"{there} is a file, and a folder is needed.", where=where, next_step="Name another place, or move it.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DeniedError(f"{there} may not be written to.", where=where, next_step="Name another place, or permit it.")


def build_folder(result: Result, *, job: JobSpec, model: Path, index: Index, store: ObjectStore, out: Path) -> None:
    """Weights, samples and the model card, as they will lie under each place."""
    build_published(result.checkpoint, job=job, model_dir=model, out=out)
    samples = tuple(fetch_samples(job, step=result.step, store=store, out=out))
    roles = roles_of(index, data=job.data)
    facts = CardFacts(
        step=result.step,
        digest=result.digest,
        precision=result.facts["precision"],
        num_pictures=roles.num_trained,
        sdjob_version=__version__,
        resume="rounding" if result.facts["inexact"] else "exact",
        trigger_caption=only_caption(index, numbers=roles.train),
        samples=samples,
        family=read_base_model(model).family,
    )
    (out / CARD_NAME).write_text(model_card(job, facts=facts, licence=base_licence(model)), encoding="utf-8")


def fetch_samples(job: JobSpec, *, step: int, store: ObjectStore, out: Path) -> Iterator[SamplePicture]:
    """The validation pictures of a step, from whichever attempt drew them last."""
    if job.validation is None:
        return
    newest = {Path(key).name: key for key in sorted(samples_of_step(store.list("attempts/"), step=step))}
    for name, key in sorted(newest.items()):
        target = out / "samples" / name
        target.parent.mkdir(exist_ok=True)
        store.read_to(key, target)
        yield SamplePicture(file=f"samples/{name}", prompt=job.validation.prompts[int(name.split("-")[0])])


def samples_of_step(objects: Iterable[ObjectInfo], *, step: int) -> Iterator[str]:
    """Keys, of every attempt."""
    return (info.key for info in objects if f"/samples/{step:08d}/" in info.key)


def lacks_samples(job: JobSpec, *, step: int, store: ObjectStore) -> bool:
    """Whether validation pictures of a step that the job asks for were never drawn."""
    if job.validation is None:
        return False
    drawn = {Path(key).name for key in samples_of_step(store.list("attempts/"), step=step)}
    return len(drawn) < len(job.validation.prompts) * job.validation.images


def publish_all(
    result: Result,
    *,
    run_id: str,
    job: JobSpec,
    model: Path,
    index: Index,
    store: ObjectStore,
    scratch: Path,
    check_stop: Callable[[], None],
    log: Log,
) -> list[str]:
    """The places that now hold the result; doing it again changes nothing."""
    if not job.publish:
        return []
    folder = scratch / "publish"
    folder.mkdir()
    build_folder(result, job=job, model=model, index=index, store=store, out=folder)
    publication = Publication(
        digest=result.digest,
        identity=run_id,
        step=result.step,
        job=public_job(job),
        versions={"sdjob": __version__, **result.facts["fingerprint"]["versions"]},
    )
    published: list[str] = []
    for target in job.publish:
        check_stop()
        place = parse_place(target.to, base=Path.cwd())
        publish(
            open_store(place),
            folder=folder,
            publication=publication,
            replace=target.replace,
            private=target.private,
            check_stop=check_stop,
            log=log,
        )
        published.append(place.uri)
    shutil.rmtree(folder)
    return published

"""The places that a job writes. What is written to try is removed again, folders that were made for it included."""

import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from sdjob.ckpt.engine import CommitLog
from sdjob.ckpt.probe import refuse_dishonest
from sdjob.core.clock import SystemClock
from sdjob.core.errors import UnsoundError
from sdjob.core.log import Log
from sdjob.job.doctor.checkup import Check
from sdjob.job.doctor.finding import Finding, asked, not_fatal, ok, warning
from sdjob.job.doctor.sources import BRIEF, Asker, credentials
from sdjob.job.record import RECORD_NAME, read_record
from sdjob.spec.checkpoint import PublishSpec
from sdjob.spec.job import JobSpec
from sdjob.spec.places import Place, parse_place
from sdjob.store.patient import PatientStore

CHECKPOINTS, ENCODINGS = "checkpoint.to", "run.cache"
PROBE_PREFIX = ".sdjob-doctor-"  # a dot name: who lists a published folder passes it over


def target_checks(job: JobSpec, *, asker: Asker, log: Log) -> Iterator[Check]:
    yield Check(CHECKPOINTS, lambda: checkpoints(job, asker=asker, log=log))
    if job.run.cache is not None:
        shared = parse_place(job.run.cache, base=Path.cwd())
        yield Check(ENCODINGS, lambda: encodings(shared, asker=asker))
    for number, target in enumerate(job.publish):
        name = f"publish.{number}.to"
        yield Check(name, lambda name=name, target=target: published(name, target=target, asker=asker))


# ---- checkpoints -----------------------------------------------------------------------------------------------------------


def checkpoints(job: JobSpec, *, asker: Asker, log: Log) -> Iterator[Finding]:
    place = parse_place(job.checkpoint.to, base=Path.cwd())
    store = asker.store(place)
    if place.scheme != "file":
        yield from asked(CHECKPOINTS, lambda: [credentials(CHECKPOINTS, place=place, asker=asker)])
    yield from asked(CHECKPOINTS, lambda: [honest(job, place=place, store=store, log=log)])
    yield from asked(CHECKPOINTS, lambda: [history_of(place, store=store, log=log)])
    yield from expiry(CHECKPOINTS, store=store)


def honest(job: JobSpec, *, place: Place, store: PatientStore, log: Log) -> Finding:
    """Creates an object twice and deletes it, as every run does before it begins."""
    try:
        with untouched(place):
            nonces = (secrets.token_hex(16), secrets.token_hex(16))
            refuse_dishonest(store, nonces=nonces, accept=False, log=log)
    except UnsoundError as error:
        if not job.checkpoint.unsafe_single_writer:
            raise
        return not_fatal(CHECKPOINTS, error)
    return ok(CHECKPOINTS, f"{store.uri} can be written, and refuses to create what exists.")


def history_of(place: Place, *, store: PatientStore, log: Log) -> Finding:
    history = CommitLog(store, clock=SystemClock(), log=log, backoff=BRIEF).replay()
    if history.done:
        told = f"holds a run that is done, at step {history.done.step}."
    elif history.live:
        told = f"holds a run: the next attempt goes on from step {history.live[0].step}."
    else:
        told = "holds no commit: the next attempt starts a new run."
    return ok(CHECKPOINTS, f"{place.uri} {told}")


def expiry(name: str, *, store: PatientStore) -> Iterator[Finding]:
    """Who may not read the rules has not lost anything by it, but should have somebody else look."""

    def look() -> Iterator[Finding]:
        for rule in store.expiry_rules():
            yield warning(name, f"{store.uri}: {rule}", next_step="Leave this prefix out of the rule, or take another one.")

    yield from asked(name, look, otherwise=not_fatal)


def encodings(place: Place, *, asker: Asker) -> Iterator[Finding]:
    store = asker.store(place)
    if place.scheme != "file":
        yield from asked(ENCODINGS, lambda: [credentials(ENCODINGS, place=place, asker=asker)])
    yield from asked(ENCODINGS, lambda: [writable(ENCODINGS, place=place, store=store)])


# ---- published folders -----------------------------------------------------------------------------------------------------


def published(name: str, *, target: PublishSpec, asker: Asker) -> Iterator[Finding]:
    place = parse_place(target.to, base=Path.cwd()).on_hub("models")
    if place.scheme == "hf":
        yield from repository(name, place=place, target=target, asker=asker)
        return
    store = asker.store(place)
    if place.scheme != "file":
        yield from asked(name, lambda: [credentials(name, place=place, asker=asker)])
    yield from asked(name, lambda: [writable(name, place=place, store=store)])
    yield from asked(name, lambda: [occupied(name, store=store, target=target)])
    yield from expiry(name, store=store)


def writable(name: str, *, place: Place, store: PatientStore) -> Finding:
    key = PROBE_PREFIX + secrets.token_hex(8)
    with untouched(place):
        store.write(key, b"written by sdjob doctor, which removes it again\n")
        store.delete([key])
    return ok(name, f"{store.uri} can be written.")


def occupied(name: str, *, store: PatientStore, target: PublishSpec) -> Finding:
    """A run may complete or renew its own result. Whether what is there is its own shows when it publishes."""
    there = [key for key in store.keys("") if not key.startswith(".")]
    if not there:
        return ok(name, f"{store.uri} is empty.")
    record = read_record(store) if RECORD_NAME in there else None
    held = f"the result of a run, of step {record.step}" if record else f"{len(there)} {'file' if len(there) == 1 else 'files'}"
    told = f"{store.uri} holds {held}."
    if target.replace:
        return ok(name, f"{told} It is written over: replace is true.")
    return warning(name, told, next_step="Where it is not this run's own, publishing ends with 64: then set replace: true.")


def repository(name: str, *, place: Place, target: PublishSpec, asker: Asker) -> Iterator[Finding]:
    """The token's rights alone are looked at: a test commit would stay in the history for good."""
    store = asker.store(place)
    yield from asked(name, lambda: [credentials(name, place=place, asker=asker)])
    from sdjob.store.hub_rights import writing_rights  # noqa: PLC0415  the Hub's client is slow to import

    def look() -> Iterator[Finding]:
        rights = writing_rights(place, private=target.private)
        yield ok(name, rights.told)
        if rights.exists:
            yield occupied(name, store=store, target=target)

    yield from asked(name, look)


# ---- this machine's folders ------------------------------------------------------------------------------------------------


@contextmanager
def untouched(place: Place) -> Generator[None]:
    """A folder of this machine is left as it was found: what a try has made, and left empty, goes again."""
    if place.scheme != "file":
        yield
        return
    before = {folder for folder in (place.path, *place.path.parents) if folder.exists()}
    before |= {path for path in place.path.glob("*") if path.is_dir()}
    try:
        yield
    finally:
        made = {path for path in place.path.glob("*") if path.is_dir()} | {place.path, *place.path.parents}
        for folder in sorted(made - before, key=lambda path: len(path.parts), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

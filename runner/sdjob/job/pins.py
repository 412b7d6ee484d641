"""Which commit a Hub revision meant when the run began. Later attempts keep to it, though the branch has moved on since."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdjob.core.errors import UsageError
from sdjob.spec.data import DataSpec, SourceSpec
from sdjob.spec.job import JobSpec
from sdjob.spec.places import HubKind, Place, parse_place
from sdjob.spec.sources import DataSource
from sdjob.store.base import ObjectMissingError
from sdjob.store.patient import PatientStore

PINS_KEY = "data/revisions.json"
# Asked-for place, revision included -> the place at its commit.
Pins = Mapping[str, str]


def read_pins(store: PatientStore) -> Pins:
    """Empty before the first attempt has written them, and for a run without Hub places."""
    try:
        pins: dict[str, str] = json.loads(store.read(PINS_KEY))
    except ObjectMissingError:
        return {}
    except ValueError as error:
        raise UsageError(
            "this file is no JSON, so the revisions of the run's sources are not known.",
            where=f"{store.uri}/{PINS_KEY}",
            next_step="Restore it from a backup, or name full commits as the job's revisions and delete the file.",
        ) from error
    return pins


def write_pins(pins: Pins, *, store: PatientStore) -> None:
    if pins:
        store.write(PINS_KEY, (json.dumps(dict(sorted(pins.items())), indent=1) + "\n").encode())


def pinned(job: JobSpec, *, stored: Pins, resolve: Callable[[Place], Place]) -> tuple[JobSpec, Pins]:
    """The job with a commit wherever it names a revision, and the pins that say so. `resolve` asks the Hub."""
    pins: dict[str, str] = {}

    def commit_of(place: Place) -> str:
        asked = place.uri
        pins[asked] = stored.get(asked) or resolve(place).uri
        return pins[asked].rpartition("@")[2]

    updates: dict[str, Any] = {}
    model = model_place(job)
    if model.scheme == "hf":
        updates["model"] = job.model.model_copy(update={"revision": commit_of(model)})
    updates["data"] = job.data.model_copy(update=_pinned_data(job.data, commit_of=commit_of))
    for field, place in {"vae": vae_place(job), "config": config_place(job)}.items():
        if place is not None and place.scheme == "hf":
            address = str(getattr(job.model, field)).partition("@")[0]
            updates["model"] = (updates.get("model") or job.model).model_copy(update={field: f"{address}@{commit_of(place)}"})
    start = init_place(job)
    if start is not None and start.scheme == "hf":
        address = job.train.init_from.partition("@")[0] if job.train.init_from else ""
        updates["train"] = job.train.model_copy(update={"init_from": f"{address}@{commit_of(start)}"})
    return job.model_copy(update=updates), pins


def model_place(job: JobSpec) -> Place:
    return _at(job.model.source, kind="models", revision=job.model.revision)


def vae_place(job: JobSpec) -> Place | None:
    return None if job.model.vae is None else _at(job.model.vae, kind="models", revision=None)


def config_place(job: JobSpec) -> Place | None:
    return None if job.model.config is None else _at(job.model.config, kind="models", revision=None)


def data_place(source: DataSource | SourceSpec | DataSpec) -> Place:
    return _at(source.source, kind="datasets", revision=source.revision)


def _pinned_data(data: DataSpec, *, commit_of: Callable[[Place], str]) -> dict[str, Any]:
    def pinned_part(part: Any) -> Any:
        if part is None or not part.source or (place := data_place(part)).scheme != "hf":
            return part
        return part.model_copy(update={"revision": commit_of(place)})

    return {
        "revision": pinned_part(data).revision,
        "sources": tuple(map(pinned_part, data.sources)),
        "prior": pinned_part(data.prior),
        "held_out": pinned_part(data.held_out),
    }


def init_place(job: JobSpec) -> Place | None:
    return None if job.train.init_from is None else _at(job.train.init_from, kind="models", revision=None)


def _at(text: str, *, kind: HubKind, revision: str | None) -> Place:
    return parse_place(text, base=Path.cwd()).on_hub(kind, revision=revision)

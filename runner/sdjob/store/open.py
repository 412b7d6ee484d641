"""From a place to its store. The only importlib of the package: a user of one store needs no SDK of another."""

import importlib
from dataclasses import replace
from typing import Any, Protocol, cast

from sdjob.core.errors import UnavailableError, UsageError
from sdjob.spec.places import Place
from sdjob.store.base import ObjectStore

# scheme -> "module:Class", and the extra of this package that brings the SDK
STORES = {
    "file": ("sdjob.store.local:LocalStore", ""),
    "s3": ("sdjob.store.s3:S3Store", "s3"),
    "gs": ("sdjob.store.gcs:GcsStore", "gcs"),
    "hf": ("sdjob.store.hub:HubStore", "hub"),
}


class StoreClass(Protocol):
    def of(self, place: Place) -> ObjectStore: ...


def open_store(place: Place) -> ObjectStore:
    """The store of a place. Opening asks nothing of the place itself: the first call does.

    UnavailableError (69) where the SDK of this kind of place is not installed.
    """
    class_name = STORES[place.scheme][0].partition(":")[2]
    return cast("StoreClass", getattr(_module(place), class_name)).of(place)


def open_run(place: Place) -> ObjectStore:
    """The store of a run's checkpoints. UsageError for the Hub, whose repositories cannot hold a commit log."""
    if place.scheme == "hf":
        raise UsageError(
            "the Hub keeps no checkpoints: a run lies in a folder or a bucket.",
            where=place.uri,
            next_step="Name the job's checkpoint.to.",
        )
    return open_store(place)


def resolve_revision(place: Place) -> Place:
    """The same place at the commit that its revision means now. Asks the Hub; other places have no revisions."""
    if place.scheme != "hf":
        return place
    return replace(place, revision=_module(place).resolve_commit(place))


def _module(place: Place) -> Any:
    path, extra = STORES[place.scheme]
    try:
        return importlib.import_module(path.partition(":")[0])
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("sdjob"):
            raise
        raise UnavailableError(
            f"{place.scheme}:// places need the package {error.name}, which is not installed.",
            where=place.uri,
            next_step=f"pip install 'sdjob[{extra}]'",
        ) from error

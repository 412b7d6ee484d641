"""From a place to its store. The only importlib of the package: a user of one store needs no SDK of another."""

import importlib
from typing import Protocol, cast

from sdjob.core.errors import UsageError
from sdjob.spec.places import Place
from sdjob.store.base import ObjectStore

STORES = {"file": "sdjob.store.local:LocalStore"}  # scheme -> "module:Class"


class StoreClass(Protocol):
    def of(self, place: Place) -> ObjectStore: ...


def open_store(place: Place) -> ObjectStore:
    """The store of a place. Opening asks nothing of the place itself: the first call does."""
    if place.scheme not in STORES:
        raise UsageError(f"{place.scheme}:// is not yet in this version; use a folder.", where=place.uri)
    module, _, name = STORES[place.scheme].partition(":")
    return cast("StoreClass", getattr(importlib.import_module(module), name)).of(place)

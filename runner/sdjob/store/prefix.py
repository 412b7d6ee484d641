"""A place inside a bucket: its keys carry a prefix there and none outside."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sdjob.spec.places import Place
from sdjob.store.base import ObjectInfo, checked_key, checked_prefix, listed_key


@dataclass(frozen=True)
class Prefix:
    place: Place

    @property
    def text(self) -> str:
        """With its slash: `runs/x` must never take in `runs/xy`."""
        return f"{self.place.prefix}/" if self.place.prefix else ""

    def name_of(self, key: str) -> str:
        """The object's name in the bucket."""
        return self.text + checked_key(key)

    def listing_of(self, prefix: str) -> str:
        return self.text + checked_prefix(prefix)

    def where(self, key: str) -> str:
        return f"{self.place.uri}/{key}" if key else self.place.uri

    def keys_of(self, listed: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        """From names in the bucket to keys; what is no object of the place is passed over, what could leave it is refused."""
        for info in listed:
            key = listed_key(info.key.removeprefix(self.text), size_bytes=info.size_bytes, where=self.place.uri)
            if key is not None:
                yield ObjectInfo(key, info.size_bytes, version=info.version)

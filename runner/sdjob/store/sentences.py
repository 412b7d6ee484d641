"""What stores over a network say, each once: the error's class, what is wrong, and what to do next."""

from dataclasses import dataclass

from sdjob.core.errors import MissingError, SdjobError, StorageError
from sdjob.store.base import ObjectChangedError, ObjectMissingError, TransientStoreError


@dataclass(frozen=True)
class Sentence:
    kind: type[SdjobError]
    what: str
    next_step: str | None = None

    def error(self, *, where: str, reason: str = "") -> SdjobError:
        """`reason`: what the store itself says, where that tells more; never a header or a signed address."""
        what = f"{self.what} {reason}" if reason else self.what
        return self.kind(what, where=where, next_step=self.next_step)


NO_BUCKET = Sentence(MissingError, "there is no such bucket.", "Make it, or mend the place's name.")
NO_OBJECT = Sentence(ObjectMissingError, "there is no such object.")
CHANGED = Sentence(ObjectChangedError, "the object was replaced while it was being read.")
BUSY = Sentence(TransientStoreError, "the store is busy or out of order.")
UNREACHABLE = Sentence(TransientStoreError, "the store cannot be reached, or broke off.", "Look at the network and the endpoint.")
DAMAGED = Sentence(TransientStoreError, "the store refused the upload: what arrived was not what was sent.")
FULL = Sentence(StorageError, "the store is full, or a quota is used up.", "Free some space, or lower checkpoint.keep.")

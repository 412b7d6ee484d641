"""The honesty probe: a store that answers "created" to both of two create-only writes cannot fence anybody."""

from sdjob.core.errors import UnsoundError
from sdjob.core.log import Log
from sdjob.store.patient import PatientStore


def refuse_dishonest(store: PatientStore, *, nonces: tuple[str, str], accept: bool, log: Log) -> None:
    """UnsoundError where the condition is ignored; a warning instead where the job accepts that.

    The key is new each time, and goes again. What is read at the end counts for more than the first answer, whose reply
    may have been lost and its retry refused; and it is read twice at most, since a byte may be turned on the way.
    """
    key, (first, second) = f"probe/{nonces[0]}", nonces
    store.create(key, first.encode())
    refused = not store.create(key, second.encode())
    honest = refused and any(store.read(key) == first.encode() for _ in range(2))
    store.delete([key])
    if honest:
        return
    if not accept:
        raise UnsoundError(
            "this store lets two writers create the same object, so a run killed and started twice could damage itself.",
            where=store.uri,
            next_step="Use another store, or set checkpoint.unsafe_single_writer: true and never start the job twice.",
        )
    log.warning("store_unsafe", message=f"{store.uri} cannot tell two attempts apart; never start this job twice at a time.")

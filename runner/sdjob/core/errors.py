"""Every error that sdjob raises on purpose, one small tree; each class is one exit code of the contract.

    SdjobError                    70  a fault of sdjob itself
    |-- UsageError                64  the job file or the command line is wrong
    |-- DataError                 65  the data is unusable
    |-- MissingError              66  a file, place, model or data set does not exist
    |-- UnavailableError          69  this machine lacks something
    |-- NoProgressError           70  attempts end again and again without a new commit
    |-- PeerLostError             71  a peer of the gang was lost
    |-- StorageError              74  storage, network or scratch failed after all retries
    |-- StoppedError              75  stopped on request; run me again
    |-- FencedError               76  another attempt owns the run now
    |-- DeniedError               77  permission denied, or a token is missing
    |-- UnsoundError              78  non-finite loss, damaged checkpoints, a dishonest store
    `-- TimeSpentError            79  `max_hours` is used up

Codes up to 78 follow sysexits.h (https://man.freebsd.org/cgi/man.cgi?query=sysexits).
"""

from typing import ClassVar


class SdjobError(Exception):
    """An error that a person reads: what is wrong, where (field, step, key, file), and what to do next."""

    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, *, where: str | None = None, next_step: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        gap = "" if self.what.endswith("\n") else " "  # a list stands on lines of its own
        then = f"{gap}{self.next_step}" if self.next_step else ""
        return f"{place}{self.what}{then}"


class UsageError(SdjobError):
    exit_code = 64


class DataError(SdjobError):
    exit_code = 65


class MissingError(SdjobError):
    exit_code = 66


class UnavailableError(SdjobError):
    exit_code = 69


class NoProgressError(SdjobError):
    exit_code = 70


class PeerLostError(SdjobError):
    exit_code = 71


class StorageError(SdjobError):
    exit_code = 74


class StoppedError(SdjobError):
    exit_code = 75


class FencedError(SdjobError):
    exit_code = 76


class DeniedError(SdjobError):
    exit_code = 77


class UnsoundError(SdjobError):
    exit_code = 78


class TimeSpentError(SdjobError):
    exit_code = 79


# What another attempt would only repeat; every other end of an attempt is worth one more.
FINAL_EXIT_CODES = tuple(
    error.exit_code
    for error in (UsageError, DataError, MissingError, UnavailableError, FencedError, DeniedError, UnsoundError, TimeSpentError)
)


def error_for_exit_code(exit_code: int, what: str) -> SdjobError:
    """The error that a child process meant by its exit code; an unknown code is a fault of sdjob (70)."""
    for kind in SdjobError.__subclasses__():
        if kind.exit_code == exit_code != SdjobError.exit_code:
            return kind(what)
    return SdjobError(what)

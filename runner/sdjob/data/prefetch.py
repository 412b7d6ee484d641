"""Batches drawn ahead of the training step, in threads; what is drawn does not depend on how many."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    def sample(self, step: int, index_in_batch: int, *, global_batch: int) -> T_co: ...


class SampleBatches(Generic[T]):
    """The samples of a step, their decoding spread over `workers` threads (0: the caller's own).

    `members` are this process's places in the global batch; `batch` is what a Prefetch calls.
    """

    def __init__(self, source: Source[T], *, global_batch: int, members: Sequence[int], workers: int) -> None:
        self.source = source
        self.global_batch = global_batch
        self.members = members
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode") if workers else None  # threads start when used

    def batch(self, step: int) -> tuple[T, ...]:
        """Samples in the order of `members`. Raises what the first of them raises."""

        def draw(member: int) -> T:
            return self.source.sample(step, member, global_batch=self.global_batch)

        return tuple(self._pool.map(draw, self.members) if self._pool else map(draw, self.members))

    def close(self) -> None:
        """Ends the threads; may be called again."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


class Prefetch(Generic[T]):
    """Iterates make(step) for the steps from `start` up to, not including, `stop`.

    One thread draws at most `depth` of them ahead (0: the caller's own thread, nothing ahead). An error in make(step) is
    raised when that step is asked for, and ends the iteration. Use it as a context manager, or close it.
    """

    def __init__(self, make: Callable[[int], T], *, start: int, stop: int, depth: int = 2) -> None:
        self._make = make
        self._steps = iter(range(start, stop))
        self._depth = depth
        self._ahead: deque[Future[T]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._closed:
            raise StopIteration
        try:
            return self._taken() if self._depth else self._make(next(self._steps))
        except BaseException:  # also StopIteration and KeyboardInterrupt: no thread outlives the loop that it draws for
            self.close()
            raise

    def close(self) -> None:
        """Waits for the step that is being drawn and drops the others; may be called again."""
        self._closed = True
        self._ahead.clear()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _taken(self) -> T:
        """The next step's batch; the thread is told of the steps after it first, so that it never runs dry."""
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        while len(self._ahead) <= self._depth and (step := next(self._steps, None)) is not None:
            self._ahead.append(self._pool.submit(self._make, step))
        if not self._ahead:
            raise StopIteration
        return self._ahead.popleft().result()

"""A clock that tests turn by hand; who sleeps turns it too."""


class FakeClock:
    def __init__(self, *, unix_s: float = 1_700_000_000.0) -> None:
        self._unix_s = unix_s
        self._monotonic_s = 0.0
        self.slept_s: list[float] = []

    def unix_s(self) -> float:
        return self._unix_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._unix_s += seconds
        self._monotonic_s += seconds

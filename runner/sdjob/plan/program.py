"""What the step's own program needs, as its tracer or compiler told it (job/ahead asks them). Pure."""

from dataclasses import asdict, dataclass
from typing import Any

from sdjob.plan.rates import bytes_per_s
from sdjob.spec.hardware import Accelerator


@dataclass(frozen=True)
class Program:
    """Of one device and one optimizer step."""

    by: str
    """Who told it."""

    needed_bytes: int
    parts_bytes: dict[str, int]
    """Of a TPU: as far as the compiler was let to its end."""

    flops: float
    accessed_bytes: float | None
    """Memory traffic: of a TPU's whole compilation alone."""

    capacity_bytes: int | None
    """What a program gets, of a TPU."""

    def least_s(self, *, machine: Accelerator) -> tuple[float, str] | None:
        """The roofline: the longer of arithmetic and traffic at their peaks, and which it is; None where no peak is known."""
        peak, bandwidth = machine.device_peak_flops, bytes_per_s(machine)
        times = [
            (self.flops / peak, "arithmetic") if peak else None,
            (self.accessed_bytes / bandwidth, "traffic") if bandwidth and self.accessed_bytes else None,
        ]
        return max((time for time in times if time), default=None)

    def summary(self, *, machine: Accelerator) -> dict[str, Any]:
        """For programs."""
        least = self.least_s(machine=machine)
        fits = None if self.capacity_bytes is None else self.needed_bytes <= self.capacity_bytes
        return {**asdict(self), "fits": fits, "roofline_s": least and least[0], "bound_by": least and least[1]}

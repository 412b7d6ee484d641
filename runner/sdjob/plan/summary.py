"""An outlook for programs: plain numbers under names with their units."""

from dataclasses import asdict
from typing import Any

from sdjob.plan.outlook import Outlook
from sdjob.spec.hardware import resolve_precision
from sdjob.spec.support import unsupported


def summary(found: Outlook) -> dict[str, Any]:
    """null is what cannot be told."""
    job, memory, work = found.job, found.memory, found.work
    return {
        "name": job.name,
        "model": {"name": found.model.shape.name, "whence": found.model.whence, "assumed": found.model.assumed},
        "method": job.train.method,
        "backend": job.train.backend,
        "precision": resolve_precision(job.train.precision, accelerator=found.machine),
        "accelerator": job.run.accelerator,
        "devices": found.devices,
        "spot": job.run.spot,
        "not_yet": unsupported(job),
        "length": asdict(found.length),
        "step_flops": {
            "total": work.total, "forward": work.unet.forward, "backward": work.unet.backward, "again": work.unet.again,
            "encoders": work.encoders,
        },
        "trained_params": work.trained_params,
        "device_memory": {
            "parts_bytes": memory.parts, "needed_bytes": memory.needed, "capacity_bytes": memory.capacity, "fits": memory.fits,
        },
        "would_fit": [{"set": way.fields, "price": way.price, "needed_bytes": way.needed} for way in found.fitting],
        "step_s": told(found.step_s),
        "training_hours": told(found.training_hours),
        "hours": told(found.hours),
        "losses": told(found.losses),
        "usd": told(found.usd),
        "price": told(found.price),
        "paid_devices": found.paid_devices,
        "checkpoint": asdict(found.checkpoint),
        "transfer": asdict(found.transfer),
        "pod_bytes": asdict(found.pod),
    }  # fmt: skip


def told(part: Any) -> dict[str, Any] | None:
    return None if part is None else asdict(part)

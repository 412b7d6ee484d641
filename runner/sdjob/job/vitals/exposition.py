"""Metrics as Prometheus reads them. Pure.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format (version 0.0.4); names and units:
https://prometheus.io/docs/practices/naming/. A value that is not known is left out, so that no panel shows a made-up zero.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from sdjob import __version__
from sdjob.job.vitals.signs import PHASES, Signs
from sdjob.spec.job import JobSpec

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MIB = 2**20


@dataclass(frozen=True)
class Family:
    name: str
    kind: Literal["gauge", "counter"]
    help: str
    read: Callable[[Signs], float | None]


FAMILIES = (
    Family("sdjob_attempt", "gauge", "Number of this attempt at the run.", lambda s: s.attempt),
    Family(
        "sdjob_restarts_total", "counter", "Attempts at the run before this one.", lambda s: s.attempt - 1 if s.attempt else None
    ),
    Family("sdjob_step", "gauge", "Optimizer steps behind the present weights.", lambda s: s.step),
    Family("sdjob_target_step", "gauge", "Optimizer steps that the run will have.", lambda s: s.target_step),
    Family("sdjob_loss", "gauge", "Loss of the last step.", lambda s: s.loss),
    Family("sdjob_grad_norm", "gauge", "Norm of the last step's gradient before clipping.", lambda s: s.grad_norm),
    Family("sdjob_learning_rate", "gauge", "Learning rate of the last step.", lambda s: s.learning_rate),
    Family("sdjob_images_per_second", "gauge", "Pictures a second over the last steps.", lambda s: s.images_per_s),
    Family("sdjob_images_total", "counter", "Pictures that this attempt has trained on.", lambda s: s.num_images),
    Family("sdjob_data_wait_seconds_total", "counter", "Time that this attempt waited for pictures.", lambda s: s.data_wait_s),
    Family(
        "sdjob_device_memory_peak_bytes",
        "gauge",
        "The most memory in use so far on the first device.",
        lambda s: s.device_memory_mib * MIB if s.device_memory_mib is not None else None,
    ),
    Family("sdjob_last_commit_step", "gauge", "Step of the run's newest commit.", lambda s: s.committed_step),
    Family("sdjob_last_commit_timestamp_seconds", "gauge", "When it was committed, in Unix time.", lambda s: s.committed_unix_s),
    Family("sdjob_last_commit_duration_seconds", "gauge", "How long its upload took.", lambda s: s.commit_s),
    Family("sdjob_commits_total", "counter", "Commits of this attempt.", lambda s: s.num_commits),
    Family("sdjob_commit_bytes_total", "counter", "Size of this attempt's commits together.", lambda s: s.committed_bytes),
    Family("sdjob_save_stall_seconds_total", "counter", "Time that training stood still for saves.", lambda s: s.stall_s),
    Family("sdjob_saves_missed_total", "counter", "Saves that were skipped or failed.", lambda s: s.num_missed_saves),
)


def exposition(signs: Signs, *, job: JobSpec, unix_s: float, stopping: bool) -> str:
    about = {"name": job.name, "method": job.train.method, "backend": job.train.backend, "version": __version__}
    age_s = max(0.0, unix_s - signs.committed_unix_s) if signs.committed_unix_s is not None else None
    lines = [
        *family("sdjob_run_info", "gauge", "What is trained, as labels.", {labels(about): 1}),
        *family(
            "sdjob_phase",
            "gauge",
            "What the attempt does: 1 for the present phase.",
            {labels({"phase": phase}): int(phase == signs.phase) for phase in PHASES},
        ),
        *(line for each in FAMILIES for line in family(each.name, each.kind, each.help, {"": each.read(signs)})),
        *family("sdjob_last_commit_age_seconds", "gauge", "Time since the run's newest commit.", {"": age_s}),
        *family("sdjob_stop_requested", "gauge", "1 from the stop request on.", {"": int(stopping)}),
    ]
    return "".join(f"{line}\n" for line in lines)


def family(name: str, kind: str, what: str, samples: Mapping[str, float | None]) -> list[str]:
    known = [f"{name}{label} {number(value)}" for label, value in samples.items() if value is not None]
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}", *known] if known else []


def labels(values: Mapping[str, str]) -> str:
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in values.items())
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)

"""An outlook as people read it. Pure."""

import math
from collections.abc import Iterable, Iterator, Mapping

from sdjob.cluster.resources import Needs, needs
from sdjob.plan.limits import unknown_price, unknown_time
from sdjob.plan.outlook import Outlook, Range, least_notice_s
from sdjob.plan.program import Program
from sdjob.plan.rates import shares_of
from sdjob.spec.hardware import resolve_precision
from sdjob.spec.support import unsupported

GIB = 2**30


def lines(found: Outlook) -> list[str]:
    parts = {
        "job": job(found), "model": [found.model.whence], "length": length(found), "work": work(found), "memory": memory(found),
        "step": step(found), "time": time(found), "price": price(found), "interruptions": interruptions(found),
        "checkpoint": checkpoint(found), "transfer": transfer(found), "pod": pod(found), "beware": beware(found),
    }  # fmt: skip
    return titled(parts)


def titled(parts: Mapping[str, Iterable[str]]) -> list[str]:
    return [f"{title if not number else '':14}{line}" for title, told in parts.items() for number, line in enumerate(told)]


def program_lines(found: Outlook, program: Program) -> list[str]:
    return titled({"compiled": compiled(found, program)})


def compiled(found: Outlook, program: Program) -> Iterator[str]:
    capacity = program.capacity_bytes or found.memory.capacity
    room = f" of {capacity / GIB:.2f} GiB" if capacity else ""
    verdict = "" if capacity is None else ": fits" if program.needed_bytes <= capacity else ": DOES NOT FIT"
    beside = found.memory.parts.get("workspace", 0)
    yield f"by {program.by}: {program.needed_bytes / GIB:.2f} GiB{room}{verdict}"
    if program.parts_bytes:
        yield ", ".join(f"{name} {size / GIB:.2f}" for name, size in program.parts_bytes.items())
    if program.capacity_bytes is None and beside:
        yield f"without workspace and what the allocator loses, {beside / GIB:.2f} GiB above"
    traffic = f", {program.accessed_bytes / 1e9:.4g} GB of traffic" if program.accessed_bytes else ""
    yield f"{program.flops / 1e12:.4g} TFLOP a device and step{traffic}"
    if (least := program.least_s(machine=found.machine)) is not None:
        yield f"no step can take less than {least[0]:.3g} s, for its {least[1]}"


def job(found: Outlook) -> Iterator[str]:
    train, run = found.job.train, found.job.run
    precision = resolve_precision(train.precision, accelerator=found.machine)
    machines = f"{run.nodes} x " if run.nodes > 1 else ""
    kind = " spot" if run.spot else ""
    yield f"{found.job.name}: {train.method} on {train.backend}, {precision}, {machines}{run.accelerator or 'this machine'}{kind}"


def length(found: Outlook) -> Iterator[str]:
    of = found.length
    if of.steps is None or of.seen is None:
        yield f"{found.job.train.epochs} epochs of pictures that have not been counted"
        return
    epochs = f", {of.epochs:.3g} epochs of {of.pictures:,}" if of.epochs else ""
    yield f"{of.steps:,} steps of {found.job.train.global_batch:,} pictures: {of.seen:,} pictures{epochs}"


def work(found: Outlook) -> Iterator[str]:
    unet = found.work.unet
    parts = {"forward": unet.forward, "backward": unet.backward, "checkpointing": unet.again, "encoders": found.work.encoders}
    told = ", ".join(f"{name} {flops / 1e12:.3g}" for name, flops in parts.items() if flops)
    yield f"{found.work.total / 1e12:.4g} TFLOP a step ({told}); {found.work.trained_params:,} numbers are trained"


def memory(found: Outlook) -> Iterator[str]:
    of = found.memory
    if of.capacity is None:
        yield f"{of.needed / GIB:.2f} GiB a device, of which run.accelerator does not say how much it has"
    else:
        verdict = "fits" if of.fits else "DOES NOT FIT"
        yield f"{of.needed / GIB:.2f} GiB of the {of.capacity / GIB:.2f} GiB that a device has free: {verdict}"
    yield ", ".join(f"{name} {size / GIB:.2f}" for name, size in of.parts.items())
    for way in found.fitting:
        told = " ".join(f"--set {field}" for field in way.fields)
        yield f"would fit in {way.needed / GIB:.2f} GiB: {told} ({way.price})"
    if of.fits is False and not found.fitting:
        yield f"no change of the job fits: take a device of more than {of.needed / GIB:.0f} GiB"


def step(found: Outlook) -> Iterator[str]:
    peak = found.machine.device_peak_flops
    if found.step_s is None or peak is None:
        yield f"cannot be told: {unknown_time(found)}"
        return
    least, most = shares_of(found.machine)
    yield f"{span(found.step_s, '.3g')} s, at {most:.0%} to {least:.0%} of the peak of {peak / 1e12:g} TFLOP/s a device"


def time(found: Outlook) -> Iterator[str]:
    if found.hours is None or found.losses is None or found.training_hours is None:
        yield f"cannot be told: {unknown_time(found)}"
        return
    yield f"{span(found.hours, '.3g')} hours, of which {span(found.training_hours, '.3g')} training"


def price(found: Outlook) -> Iterator[str]:
    if found.usd is None or found.price is None:
        yield f"cannot be told: {unknown_price(found)}"
        return
    kind = "spot" if found.price.spot else "on demand"
    each = f"{found.paid_devices} x {found.price.usd:g} USD an hour {kind}"
    yield f"{span(found.usd, '.2f')} USD: {each} ({found.price.where}; {found.price.looked_up})"


def interruptions(found: Outlook) -> Iterator[str]:
    of = found.losses
    if of is None:
        return
    usd = found.price.of_hours(of.total_s / 3600, devices=found.paid_devices) if found.price else None
    told = f" ({usd:.2f} USD)" if usd is not None else ""
    parts = f"steps made again {of.lost_s / 60:.1f}, starts {of.starts_s / 60:.1f}, saves {of.stalls_s / 60:.1f}"
    yield f"{of.interruptions:.2g} expected; beside the training {of.total_s / 60:.1f} minutes{told}: {parts}"


def checkpoint(found: Outlook) -> Iterator[str]:
    of = found.checkpoint
    every = f"; one every {of.every_s / 60:.3g} minutes or less" if of.every_s else ""
    yield f"{size(of.size_bytes)}: {of.copy_s:.2g} s to copy, {of.upload_s:.2g} s to upload at 200 MB/s{every}"
    if of.fits_notice:
        yield f"a stop's notice of {of.notice_s:g} s is enough to save"
    else:
        needed = least_notice_s(of.size_bytes) + of.copy_s
        yield f"a stop's notice of {of.notice_s:g} s is too short to save, which takes {needed:.0f} s: the last commit counts"


def transfer(found: Outlook) -> Iterator[str]:
    of = found.transfer
    down = f"{size(of.model_bytes)} of model and the pictures at a start"
    commits = "" if of.commits is None or of.commit_bytes is None else f"; {size(of.commit_bytes)} up in {of.commits:,} commits"
    published = f"; {size(of.published_bytes)} to each place published to" if found.job.publish else ""
    yield f"{down}{commits}{published}"


def pod(found: Outlook) -> Iterator[str]:
    asked = asked_of_the_cluster(found)
    told = f"; asked for: {asked.memory_gib} and {asked.scratch_gib} GiB" if asked else ""
    yield f"memory {found.pod.memory / GIB:.0f} GiB and scratch {found.pod.scratch / GIB:.0f} GiB beside the pictures{told}"


def asked_of_the_cluster(found: Outlook) -> Needs | None:
    """By the manifest that `render` makes."""
    cluster = found.job.run.kubernetes
    return needs(found.job, cluster=cluster, accelerator=found.machine) if cluster else None


def beware(found: Outlook) -> Iterator[str]:
    yield from unsupported(found.job)
    limit = found.job.run.max_hours
    if limit is not None and found.hours is not None and found.hours.high > limit:
        yield f"run.max_hours: {limit:g} may be too short: {found.hours.high:.1f} hours are expected at most"
    asked = asked_of_the_cluster(found)
    sizes = {"memory_gib": found.pod.memory, "scratch_gib": found.pod.scratch} if asked else {}
    for name, needed in sizes.items():
        if getattr(asked, name) * GIB < needed:
            yield f"run.kubernetes.{name}: {getattr(asked, name)} may be too little: set {math.ceil(needed / GIB)}"


def span(between: Range, form: str) -> str:
    low, high = format(between.low, form), format(between.high, form)
    return low if low == high else f"{low} to {high}"


def size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2f} MB"

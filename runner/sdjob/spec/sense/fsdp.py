"""What `train.fsdp` can spread, and over what."""

from collections.abc import Iterator

from sdjob.spec.job import JobSpec
from sdjob.spec.problems import Finding, at
from sdjob.spec.sense.encoders import METHOD
from sdjob.spec.sense.kernels import BACKEND

FSDP = at("train.fsdp")


def fsdp(job: JobSpec) -> Iterator[Finding]:
    train = job.train
    if not train.fsdp:
        return
    if train.backend == "flax":
        what = "is for torch: flax always spreads what it trains over the devices of a machine"
        yield Finding(FSDP, what, "take it out", reads=(BACKEND,))
        return
    if train.method == "lora":
        what = "does nothing for method lora, whose gradients and moments are some MB"
        yield Finding(FSDP, what, "take it out, or set method: full", reads=(METHOD,))
        return
    name = train.optimizer.name
    if name != "adamw":
        what = f"goes with adamw alone: {name} keeps figures across rows, and each device has rows of its own"
        yield Finding(FSDP, what, "set train.optimizer.name: adamw", reads=(at("train.optimizer.name"),))
    if train.text_encoder != "frozen":
        what = f"spreads the UNet alone so far, and train.text_encoder is {train.text_encoder}"
        yield Finding(FSDP, what, "set train.text_encoder: frozen", reads=(at("train.text_encoder"),))
    if job.run.nodes > 1:
        what = f"spreads over the devices of one machine so far, and run.nodes is {job.run.nodes}"
        yield Finding(FSDP, what, "set run.nodes: 1", reads=(at("run.nodes"),))
